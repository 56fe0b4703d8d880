"""Landed rows, from files to judged and settled rows, as functions of Arrow tables: what a task of the Spark job runs.

Read in this order: pieces (files cut into what one task reads), rows (what was read of a piece), read_json_lines, read_csv,
read_parquet, parse_values (texts to times and numbers), judge and judge_events, judge_items, judge_impressions (the landing
contract), settle (one of each row). `spark_jobs.settle_landing` shares the pieces out.
"""
