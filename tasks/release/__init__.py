"""Releases: images to a registry, and from there to many machines. Optional: delete with its line in noxfile.py, as docs/releasing.md says."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

from .. import cli
from ..project import REPORTS, choose_services
from ..session import ready, session
from ..terminal import say
from . import image, push, rollout


@session(venv=True)
def publish(session: nox.Session) -> None:
    """Push release images: -- [SERVICE...] --registry HOST/NAMESPACE [--tag TAG]... | --verify | --check-reproducible"""
    options = cli.parser("publish", services="*")
    what = options.add_mutually_exclusive_group(required=True)
    what.add_argument("--registry", metavar="HOST/NAMESPACE", help="where to push, such as registry.example:5000/owner")
    what.add_argument("--verify", action="store_true", help="compare a registry with reports/release.json")
    what.add_argument("--check-reproducible", action="store_true", help="build twice without cache and compare")
    options.add_argument("--tag", action="append", default=[], help="besides the version and the commit")
    options.add_argument("--move-tags", action="store_true", help="let tags leave the images that have them")
    options.add_argument("--dry-run", action="store_true", help="check commit, tags and names; build and push nothing")
    options.add_argument("--untagged", action="store_true", help="a platform's part of a release, for --merge")
    options.add_argument("--merge", type=Path, nargs="+", default=[], metavar="FILE", help="parts of a release")
    args = options.parse_args(session.posargs)
    args.services = choose_services(args.services)
    if args.verify:
        push.verify()
    elif args.check_reproducible:
        ready()
        image.check_reproducible(args.services)
    elif args.dry_run:
        say(f"the tags would be {', '.join(push.check(args)[1])}")
    else:
        ready()
        try:
            push.publish(session, args)
        finally:
            shutil.rmtree(REPORTS / "release", ignore_errors=True)


@session(venv=True)
def deploy(session: nox.Session) -> None:
    """Run what was published: -- swarm [--context NAME] [--ports host|ingress] | kubernetes --render DIR [--apply]"""
    options = cli.parser("deploy")
    engines = options.add_subparsers(dest="engine", required=True)
    swarm = engines.add_parser("swarm", help="deploy to Docker Swarm and wait")
    swarm.add_argument("--context", metavar="NAME", default="", help="Docker's context; default: the current one")
    swarm.add_argument("--ports", choices=("host", "ingress"), default="host", help="how ports are published")
    kubernetes = engines.add_parser("kubernetes", help="write a Kustomize base")
    kubernetes.add_argument("--render", type=Path, metavar="DIR", required=True)
    kubernetes.add_argument("--apply", action="store_true", help="apply it by kubectl, and wait")
    args = options.parse_args(session.posargs)
    if args.engine == "swarm":
        rollout.swarm(session, args.context, args.ports)
    else:
        rollout.kubernetes(session, args.render, apply=args.apply)
