"""`jepa_ros security policy`: an SROS2 policy from what the nodes of the simulated graph open.

`run.write_policy_file` starts the graph and observes its endpoints; `policy.py` turns endpoints into XML and back, and
checks who may command. Start reading in `policy.py`.
"""
