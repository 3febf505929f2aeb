"""
The command `serve`.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

import txasgi
from txasgi import config as configuration
from txasgi.config import OPTIONS, Config, Option
from txasgi.errors import ConfigError, OperatorError

_NO_APPLICATION = (
    "no application: name it as module:attribute, like `serve app:app`; `serve txasgi.apps.demo:app` runs the demo"
)


def _parameter(one: Option) -> click.Option:
    text = f"{one.help} [default: {configuration.shown(one)}]"
    if one.kind == "flag":
        return click.Option([one.name, f"--{one.spelling}/--no-{one.spelling}"], default=None, help=text)
    return click.Option(
        [one.name, *one.flags, f"--{one.spelling}"],
        multiple=one.kind in ("list", "field"),
        default=None,
        type=str,
        metavar="|".join(one.choices) or {"list": "STRING", "field": "NAME:VALUE"}.get(one.kind, one.kind.upper()),
        help=text,
    )


class _Command(click.Command):
    """
    Prints the options in their sections.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """
        click's, in sections.
        """
        shown = {parameter.name: parameter.get_help_record(ctx) for parameter in self.get_params(ctx)}
        for section, title in configuration.SECTIONS.items():
            with formatter.section(title):
                records = [shown.pop(one.name) for one in OPTIONS.values() if one.section == section]
                formatter.write_dl([record for record in records if record is not None])
        with formatter.section("Other"):
            formatter.write_dl([record for record in shown.values() if record is not None])


def _versions() -> str:
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    for package in ("Twisted", "autobahn", "uvloop", "httptools"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"txasgi {txasgi.__version__} ({', '.join(parts)})"


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(_versions())
        ctx.exit()


def command() -> click.Command:
    """
    The command line, made from config.py.
    """
    return _Command(
        "serve",
        params=[
            click.Argument(["app"], required=False, metavar="[MODULE:ATTRIBUTE]"),
            *map(_parameter, OPTIONS.values()),
            click.Option(["--config", "config_file"], metavar="FILE", help="A TOML file with options."),
            click.Option(["--check-config"], is_flag=True, help="Check options, endpoints and application, then exit."),
            click.Option(["--print-config"], is_flag=True, help="Print the options as they come out, then exit."),
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Print the version and exit.",
            ),
        ],
        callback=_serve,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Serve an ASGI application over any Twisted endpoint.",
        epilog="Example: serve -e tcp:8000 -e unix:/tmp/app.sock app:app",
    )


def main(arguments: list[str] | None = None) -> None:
    """
    The entry point. Ends the process: 0 after a graceful stop, 1 or 3 when it could not start, 2 for wrong options.
    """
    sys.exit(_status(arguments))


def _status(arguments: list[str] | None) -> int:
    try:
        result = command().main(arguments, prog_name="serve", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        return _complain(error.format_message(), 2)
    except OperatorError as error:
        return _complain(str(error), error.exit_status)
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130


def _complain(message: str, status: int) -> int:
    click.echo(f"serve: {' '.join(message.split())}", err=True)
    return status


def gathered(given: dict[str, Any], config_file: str | None) -> tuple[Config, str | None]:
    """
    The configuration and the application's name, from the command line, the environment and the file.
    """
    path = config_file or os.environ.get("TXASGI_CONFIG") or configuration.find_file(os.getcwd())
    file = configuration.from_file(path) if path else {}
    line = {
        name: configuration.parse(OPTIONS[name], value, f"--{OPTIONS[name].spelling}")
        for name, value in given.items()
        if value is not None and value != ()
    }
    config = configuration.merged([file, configuration.from_environment(os.environ), line])
    return config, os.environ.get("TXASGI_APP") or file.get("app")


def _serve(app: str | None, config_file: str | None, check_config: bool, print_config: bool, **given: Any) -> int:
    config, named = gathered(given, config_file)
    app = app or named
    if print_config:
        click.echo(configuration.as_toml(config, app), nl=False)
        return 0
    if app is None:
        raise ConfigError(_NO_APPLICATION)
    from txasgi.serve.running import run_process

    return run_process(app, config, check_only=check_config)
