"""Every table of a day out of its settled rows: steps, functions of Arrow tables, over rows that share a key.

`derive` orders them: items (what was known of an impression's item; sums of items), users (histories; sums of users, and of
users and title tokens), tokens (their sums), impressions (all sums of one together); `met_behaviors` follows. A day of few
rows runs each step once, in the driver (`run_here`): a Spark query over a thousand rows is planning and little else. Of a
day of many rows Spark brings the rows of a bucket of keys together and runs the same steps for each (`run_in_buckets`).
"""
