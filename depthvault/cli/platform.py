"""Commands that run the platform: up, down, status, demo, config check, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from depthvault.cli.options import ConfigFile, DataDir, command, configuration, console
from depthvault.errors import ConfigError

PANEL = "Platform"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, "up", panel=PANEL, example="depthvault up")
    def up(config: ConfigFile = None, data_dir: DataDir = None) -> None:
        """Start everything under supervisor: collectors, sealer, PostgreSQL and Airflow."""
        from depthvault.platform.up import up as start

        start(configuration(config, data_dir))

    @command(app, "down", panel=PANEL, example="depthvault down")
    def down(config: ConfigFile = None, data_dir: DataDir = None) -> None:
        """Stop everything that `up` or `demo` started; collectors flush first."""
        from depthvault.platform.down import down as stop

        stop(configuration(config, data_dir))

    @command(app, "reload", panel=PANEL, example="depthvault reload")
    def reload(config: ConfigFile = None, data_dir: DataDir = None) -> None:
        """Apply a changed configuration to the running platform; collectors take it over without losing a frame."""
        from depthvault.platform.up import reload as apply

        apply(configuration(config, data_dir))

    @command(app, "status", panel=PANEL, example="depthvault status")
    def status(config: ConfigFile = None, data_dir: DataDir = None) -> None:
        """Show what runs, what is recorded, and how long the disk will last."""
        from depthvault.platform.recording_status import archive_line, collectors_table, disk_line
        from depthvault.platform.status import status as show

        raise typer.Exit(show(configuration(config, data_dir), (collectors_table, archive_line, disk_line)))

    @command(app, "demo", panel=PANEL, example="depthvault demo")
    def demo(config: ConfigFile = None) -> None:
        """Run the whole platform on the bundled exchange simulator, up to a verified archive."""
        from depthvault.platform.demo import demo as run

        raise typer.Exit(run())

    config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
    app.add_typer(config_app, name="config", rich_help_panel=PANEL)

    @config_app.command("check", epilog="Example: `depthvault config check`")
    def check(
        config: ConfigFile = None,
        data_dir: DataDir = None,
        show: Annotated[bool, typer.Option("--show", help="Print the whole configuration, defaults included.")] = False,
    ) -> None:
        """Check the configuration file and environment; every unknown key or bad value is named."""
        loaded = configuration(config, data_dir)
        if show:
            import yaml

            console.print(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
        for name, exchange in loaded.exchanges.enabled().items():
            symbols = exchange.symbols if isinstance(exchange.symbols, str) else ", ".join(exchange.symbols)
            console.print(f"{name}: {symbols}; {', '.join(exchange.channels)}")
        console.print("the configuration is valid")

    alerts_app = typer.Typer(help="Alerts by Telegram and mail.", no_args_is_help=True)
    app.add_typer(alerts_app, name="alerts", rich_help_panel=PANEL)

    @alerts_app.command("test", epilog="Example: `depthvault alerts test`")
    def alerts_test(config: ConfigFile = None) -> None:
        """Send a test message by every way that is configured, and say which arrived."""
        from depthvault.alerts import Message, configured_senders
        from depthvault.alerts.senders import SendError
        from depthvault.config import Secrets

        senders = configured_senders(configuration(config).alerts, Secrets())
        if not senders:
            raise ConfigError(
                "no way to send alerts is configured: set TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID, "
                "or SMTP_HOST and alerts.mail_to"
            )
        failed = False
        for sender in senders:
            try:
                sender.send(Message("alerts test", "If you read this, Depthvault can reach you."))
                console.print(f"{sender.name}: sent")
            except SendError as error:
                failed = True
                console.print(f"[red]{error}[/]")
        raise typer.Exit(1 if failed else 0)
