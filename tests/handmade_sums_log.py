"""Small logs of impressions and events for tests of running sums: ties in time, few keys, many coincidences."""

from __future__ import annotations

from random import Random

from handmade_rows import DAY_US, Event, Impression

HOUR_US = DAY_US // 24
TITLES = [None, "", "Blue Moon", "blue sky, Moon_light", "Été à la mer", "!!", "moon moon"]
ITEM_COLOURS = [None, None, "blue", "red", "Ö", None, "blue"]
FIRST = 19_796  # 2024-03-14; 19,796 is divisible by 4, so that partitions of several days come up


def random_log(seed: int, *, days: list[int], rows_a_day: int, plain: bool) -> tuple[list[Impression], list[Event]]:
    """Return impressions and events that land on the days.

    `plain`: nothing is late and a label is known when its impression is shown; else some rows are late, and some labels
    become known up to three days later, days before their row lands, or, as the log has it, before they were shown.
    """
    random = Random(seed)
    impressions, events = [], []
    for day in days:
        for n in range(rows_a_day):
            time_us = day * DAY_US + random.choice([0, 7, 7, 12, 12, 18, 23]) * HOUR_US + random.choice([0, 0, 1])
            if not plain and random.random() < 0.15:
                time_us -= random.choice([1, 2]) * DAY_US
            known_us = time_us
            if not plain and random.random() < 0.4:
                known_us += random.choice([-HOUR_US, HOUR_US, DAY_US, 2 * DAY_US, 3 * DAY_US, 12 * DAY_US])
            user, item = f"u{random.randrange(3)}", f"i{random.randrange(len(TITLES))}"
            if random.random() < 0.5:
                title = TITLES[int(item[1:])]
                # An impression may say of itself what its item says too; then it is believed.
                cat = {"colour": ITEM_COLOURS[int(item[1:])], "place": random.choice(["red", "top", None])}
                cat |= random.choice([{}, {}, {"colour": "green"}])
                label = random.randrange(2)
                impressions.append(
                    Impression(f"{day}-{n}", day, user, item, title or None, time_us, label, known_us, cat)
                )
            else:
                events.append(
                    Event(
                        day,
                        user,
                        random.choice([item, None]),
                        f"{random.choice(['blue', 'Moon', 'mer', '??'])} {n % 3}",
                        random.choice(["ratings", "visits"]),
                        time_us,
                        random.choice([None, 0.5, 1.0, 4.0]),
                    )
                )
    return impressions, list(dict.fromkeys(events))
