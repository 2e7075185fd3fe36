"""`bursar bench`: how fast commands go from HTTP to the ledger here, beside PostgreSQL's own floor.

command.py   the command line; main.py is the order of things
works.py     each work: what is driven, over which window, what is read from it
stack.py     the servers under test: ones of our own, or ones that already run
floor.py     pgbench with the smallest double-entry transfer: the yardstick of the same run
load.py      the bundled load generator (a process of its own); wrk.py drives wrk where that is installed
observe.py   what the database saw: commands and outcomes by commit time; figures.py is the arithmetic on it
machine.py   CPU and memory by process, and what machine this is
report.py    the figures as data; show.py a table for people, picture.py a picture
"""
