"""The supervisor: a Trio object that owns containers, their states, the journal and the events.

Policy lives here and in what is above; nothing below this room knows of it.
"""
