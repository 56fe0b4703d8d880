"""The steps of the job after rows are settled, for a day of few rows: functions of Arrow tables, in the driver.

A Spark query over a thousand rows is planning and little else, and the steps take some thirty.
What each table means stands in the files of the same name one folder up; tests hold both ways to equal rows.
"""
