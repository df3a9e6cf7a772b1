"""What a build prints, step by step, and why it failed, in one line."""

from __future__ import annotations

import re
from functools import cache

from ..project import ROOT
from ..shell import ENGINE_GONE
from ..terminal import Status, cut, say

SHOWN_FROM_S = 0.5
# What BuildKit says in many lines, and what it means in one.
HINTS = (
    (r"Failed to build `([^`]+)`", "{1} has no wheel for this platform, and cannot be compiled: choose another version of it, or see BUILD_PACKAGES in docs/adopting.md"),
    (r"the shared group .* does not go with .*", "{0}"),
    (r"changed significantly since poetry\.lock", "poetry.lock is out of date against pyproject.toml: run `nox -s lock`, with `-- --service NAME` for a service's own"),
    (r"InvalidRequirementError|TOMLDecodeError", "pyproject.toml or poetry.lock has a fault: `nox -s lock` says which"),
    (r"failed to resolve source metadata", "the base image is not here for this flavor and platform, and no registry gives it: `nox -s setup`, or name another as STACK_BASE in .env"),
    (r"no space left on device", "no disk space is left for the build: `docker system df` shows what takes it"),
    (r"error reading from server: EOF|Cannot connect to the Docker daemon", ENGINE_GONE),
    (r"mkdir (\S+)/\.docker: ", "Docker's client cannot write its configuration: set HOME, or DOCKER_CONFIG, to a folder that you may write to"),
    (r"hash mismatch", "a package does not have the hash that poetry.lock states: do not trust it, or run `nox -s lock`"),
    (r"NotValidYet|invalid peer certificate: Expired|not yet valid|certificate has expired", "a certificate is not valid now: check this machine's clock"),
    (r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED", "a certificate is not trusted: set STACK_CA in .env to the file with your CAs"),
    (r"ERROR: failed to stat|: read \S+: is a directory", "a build secret is no file: set STACK_CA in .env to the file with your CAs"),
    (r"dns error|Temporary failure in name resolution|Name or service not known|Could not resolve|Connection refused|(?:operation|Read|connect) time(?:d )?out", "the package index does not answer: check the network, or set PIP_INDEX_URL to a mirror"),
    (r"not a trusted or secure host", "PIP_INDEX_URL must begin with https://"),
    (r"has no wheels with a matching|no wheel matches", "a dependency has no wheel for this platform: choose another version of it"),
)  # fmt: skip


class Progress:
    """Takes a build's plain output line by line, keeps it, and shows each step that ran, once, with its time."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.log: list[str] = []
        self.steps: dict[str, str] = {}
        self.shown: set[str] = set()

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.log.append(line)
        if found := re.match(r"(\[\S+\]) STEP \S+ (RUN .*)", line):
            say(f"  {shorten(' '.join(found.groups()))}")  # Podman's; it has no cache and tells no times
        if not (found := re.match(r"#(\d+) (.*)", line)):
            return
        number, text = found.groups()
        if step := re.match(r"(\[(?:\S+ )?(\S+) \d+/\d+\]) (.*)", text):
            self.steps[number] = self.status.text = shorten(f"{step[1]} {stages().get(step[2], step[3])}")
        elif text == "CACHED":
            self.steps.pop(number, None)
        elif (done := re.match(r"DONE (\d+\.\d+)s", text)) and (shown := self.steps.pop(number, "")):
            if float(done[1]) >= SHOWN_FROM_S and shown not in self.shown:
                self.shown.add(shown)
                say(f"{float(done[1]):7.1f} s  {shown}")
            self.status.text = next(reversed(self.steps.values()), self.status.text)


@cache
def stages() -> dict[str, str]:
    """What each stage of the Dockerfile is for: the first words of the comment above it."""
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"((?:^# .*\n)+)FROM \S+ AS (\S+)$", text, re.MULTILINE)
    return {stage: re.split(r"[.:;]\s", comment.replace("\n# ", " ")[2:])[0] for comment, stage in found}


def shorten(step: str) -> str:
    """A step without its mounts, in one line of the terminal."""
    return cut(re.sub(r"--(mount|from|chown|chmod)=\S+\s*", "", step))


def reason(log: str) -> str:
    """Why a build failed, in one line, from its whole log."""
    # BuildKit repeats what the step printed below its title, but not always the last lines.
    step = re.search(r"^#(\d+) ERROR: (?:process|executor) .*?^------\n > (\[.+?\])", log, re.MULTILINE | re.DOTALL)
    for pattern, meaning in HINTS:
        # What a service's tests print says nothing about the build.
        if not (step and re.search(r"verify\S* \d", step[2])) and (found := re.search(pattern, log, re.IGNORECASE)):
            return meaning.format(found[0], *found.groups())
    if step:
        # pytest cuts errors in its summary; what it has said before tells more than the first letters of a name.
        printed = "\n".join(re.findall(rf"^#{step[1]} [\d.]+ (?!.* - \w*\.{{3}}$)(.*)", log, re.MULTILINE))
        return f"the build failed in {step[2]}: {telling_line(printed)}"
    if podmans := re.search(r'^(: exit status \d+\n)?Error: building at STEP "RUN .*exit status', log, re.MULTILINE):
        return f"the build failed: {telling_line(log[: podmans.start()])}"
    errors = re.findall(r"^(?:ERROR|Error|error): (.*)", log, re.MULTILINE)
    last = (errors or log.splitlines() or ["BuildKit printed nothing"])[-1]
    return "the build failed: " + re.sub(r".*(?:did not complete successfully|checksum of ref \S+): ", "", last)


def telling_line(text: str) -> str:
    """The line that tells why a program failed: pytest sums up after its errors; most programs end with theirs."""
    # Of pydantic's settings, the first that is missing. pytest's summary cuts its lines.
    missing = re.findall(
        r"(?m)ModuleNotFoundError: .*(?<!\.{3})$|^(?:E +)?[\w.]+ValidationError: .*\n.*\n[^\[\n]*", text
    )
    told = missing or re.findall(r"(?m)^(?:(?:FAILED|ERROR:?)(?! \S+$)|[\w.: -]*[Ee]rror:|E  |INTERNALERROR>) .*", text)
    line = (told or text.strip().splitlines() or ["it printed nothing"])[-1]
    return re.sub(r"(^|\s*\n)(E  )?\s*", " ", line.strip()).strip()
