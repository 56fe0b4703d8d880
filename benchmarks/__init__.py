"""Programs that measure, under the settings that `bahe` runs with."""

from bahe_tasks.processor_sharing import sleep_while_waiting

sleep_while_waiting()
