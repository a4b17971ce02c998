"""What Airflow loads: the pages, and their entry in the navigation."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from plugins import pages


class DepthvaultPlugin(AirflowPlugin):
    """Coverage and gaps of the archive, inside Airflow's web UI."""

    name = "depthvault"
    fastapi_apps = [  # noqa: RUF012 - as the base class declares it
        {"app": pages.app, "url_prefix": pages.PREFIX, "name": "Depthvault"}
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Depthvault",
            "href": f"{pages.PREFIX.lstrip('/')}/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "archive-coverage",
        }
    ]
