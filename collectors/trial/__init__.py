"""`depthvault trial`: the real collectors against the simulator with faults, judged by the simulator's truth.

`stage` runs the processes and disturbs them, `archiving` takes what they recorded through every step of the archive,
`oracle` compares the archive with what the simulator knows it said, `report` says the verdict. The judges share no
code with what they judge: they read payloads with `json` and numbers with `float` and `Decimal`.
"""
