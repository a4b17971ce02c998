"""Everything on one host: servers, collectors and Airflow under supervisor.

The way in is `depthvault up | down | status`, or `python -m depthvault.platform`:

    site.py        where things lie and which parts run
    secrets.py     generated once, 0600, never in argv or logs
    ports.py       which ports, and who holds a busy one
    preflight.py   what must be right before anything is started
    postgres.py    PostgreSQL from a wheel
    s3_server.py   SeaweedFS from a wheel (demo)
    airflow_api.py the metadata database, the admin, health, DAG runs
    programs.py    collector programs from the configuration
    control.py     talking to supervisord
    supervisor.py  up, down, reload, status
    demo.py        the demo
"""
