#!/usr/bin/env python3
"""Judges deploy/ without starting any of it: schemas of other people, and what no schema sees.

Called by scripts/check-deploy with the programs of .tools/deploy. Prints each finding; exit status 1 when there is one.
Asks no network. Never changes anything: secrets are made in a temporary directory.
"""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = Path(sys.executable).parent
# The oldest that still gets repairs somewhere, and the newest that the validator knows.
KUBERNETES = ["1.30", "1.37"]
# What the programs need to end by themselves (src/cmd/serve.rs: DRAIN and CLOSE, and the runtime's second).
API_END_SECONDS = 10
# After a worker's drain: it kills children, hands tasks back and says good-bye.
WORKER_END_SECONDS = 20

# A worker may be taken over by what it decodes, or be somebody else's machine.
SERVERS_ONLY = {"REELYARD_DATABASE_URL"}

findings: list[str] = []


def find(where, what):
    findings.append(f"{where}: {what}")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [one for one in yaml.safe_load_all(file) if one is not None]


def seconds(text):
    """A duration of the Compose specification."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def secrets_are_made():
    """deploy/init: what it makes, how it guards it, and that a second run changes nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        first = run(str(DEPLOY / "init"), scratch)
        if first.returncode != 0:
            find("deploy/init", first.stderr)
            return {}
        made = {path.relative_to(scratch): path.read_bytes() for path in Path(scratch).rglob("*") if path.is_file()}
        run(str(DEPLOY / "init"), scratch)
        again = {path.relative_to(scratch): path.read_bytes() for path in Path(scratch).rglob("*") if path.is_file()}
        if made != again:
            find("deploy/init", "a second run changed something")
        for name, mode in [(".env", 0o600), ("secrets", 0o700)]:
            found = stat.S_IMODE(os.stat(Path(scratch) / name).st_mode)
            if found != mode:
                find("deploy/init", f"{name} has mode {found:o} and not {mode:o}")
        text = made[Path(".env")].decode()
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        passwords = [value for name, value in values.items() if "PASSWORD" in name or name == "S3_SECRET_KEY"]
        if len(set(passwords)) != 3 or any(len(password) < 32 for password in passwords):
            find("deploy/init", "passwords that are short or used twice")
        identities = json.loads(made[Path("secrets/s3.json")])["identities"][0]["credentials"][0]
        if identities != {"accessKey": values["S3_ACCESS_KEY"], "secretKey": values["S3_SECRET_KEY"]}:
            find("deploy/init", "secrets/s3.json and .env have different keys")
        return {"values": values, "files": {str(name) for name in made}}


def compose(made):
    path = DEPLOY / "compose.yaml"
    judged = run(str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path))
    if judged.returncode != 0:
        find(path.name, judged.stdout + judged.stderr)
        return None
    text = path.read_text(encoding="utf-8")
    # Variables without a default that would be public: each is demanded, and deploy/init makes it.
    for name, rest in re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", text):
        if not rest.startswith(":?"):
            find(path.name, f"${{{name}}} may be missing without a word; write :? and what to do")
        if name not in made["values"]:
            find(path.name, f"deploy/init does not make {name}")
    fleet = documents(path)[0]
    services = fleet["services"]
    for name, secret in fleet["secrets"].items():
        if secret["file"].removeprefix("./") not in made["files"]:
            find(path.name, f"deploy/init does not make the file of the secret {name}")
    for name, service in services.items():
        for wanted in service.get("depends_on", {}):
            if wanted not in services:
                find(path.name, f"{name} waits for {wanted}, which does not exist")
            elif service["depends_on"][wanted]["condition"] == "service_healthy" and not services[wanted].get("healthcheck"):
                find(path.name, f"{name} waits for the health of {wanted}, which has no check")
        for secret in service.get("secrets", []):
            if secret["source"] not in fleet["secrets"]:
                find(path.name, f"{name} has the secret {secret['source']}, which does not exist")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if ":" in volume and not source.startswith(".") and source not in fleet["volumes"]:
                find(path.name, f"{name} has the volume {source}, which does not exist")
        if not service.get("healthcheck") and "on-failure" not in service.get("restart", ""):
            find(path.name, f"{name} has no health check")
        if "restart" not in service:
            find(path.name, f"{name} is not started again")
        if re.search(r":latest$|^[^:]+$", service["image"]):
            find(path.name, f"{name}: say which version of {service['image']}")
        if service.get("ports") and name != "balancer":
            find(path.name, f"{name} is reached from outside; only the balancer is")
        drain = service.get("environment", {}).get("REELYARD_DRAIN_SECONDS")
        if drain and seconds(service.get("stop_grace_period", "10s")) < int(drain) + WORKER_END_SECONDS:
            find(path.name, f"{name} is killed before its drain of {drain} s is over")
        if name.startswith("api-") and seconds(service.get("stop_grace_period", "10s")) <= API_END_SECONDS:
            find(path.name, f"{name} is killed before it has ended by itself")
        if name.startswith("worker") and SERVERS_ONLY & set(service["environment"]):
            find(path.name, f"{name} holds the password of the database")
    return services


def balancer(services):
    path = DEPLOY / "haproxy.cfg"
    text = path.read_text(encoding="utf-8")
    servers = dict(re.findall(r"^\s*server (\S+) (\S+)$", text, re.MULTILINE))
    nodes = {name: f"{name}:8080" for name in services if name.startswith("api-")}
    if servers != nodes:
        find(path.name, f"its servers are {servers}, the nodes are {nodes}")
    unpacked = ROOT / ".tools/haproxy"
    program = unpacked / "usr/sbin/haproxy"
    if not program.exists():
        print("check-deploy: haproxy was not found (scripts/setup deploy unpacks it); its file was NOT judged")
        return
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(unpacked / "usr/lib" / f"{os.uname().machine}-linux-gnu")}
    judged = run(str(program), "-c", "-f", str(path), env=libraries)
    # Names of containers are not known here; the file says itself that this is no reason not to start.
    warnings = [line for line in judged.stderr.splitlines() if "[WARNING]" in line and "could not resolve" not in line]
    if judged.returncode != 0 or warnings:
        find(path.name, judged.stdout + judged.stderr)


def pod_of(thing):
    return thing["spec"]["template"]["spec"]


def kubernetes():
    folder = DEPLOY / "kubernetes"
    things = []
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "kustomization.yaml":
            continue
        for thing in documents(path):
            things.append((path.name, thing))
            where = f"{path.name} {thing['kind']} {thing['metadata']['name']}"
            if thing["apiVersion"].startswith("keda.sh/"):
                schema = json.loads((DEPLOY / "schemas/keda.json").read_text(encoding="utf-8"))
                for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
                    for part in error.context or [error]:
                        find(where, f"{part.json_path}: {part.message}")
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as one:
                yaml.safe_dump(thing, one)
                one.flush()
                for version in KUBERNETES:
                    judged = run(str(TOOLS / "kubernetes-validate"), "-k", version, "--strict", one.name)
                    if judged.returncode != 0:
                        find(where, f"Kubernetes {version}: {judged.stdout}{judged.stderr}")
            if thing["kind"] != "Namespace" and thing["metadata"].get("namespace") != "reelyard":
                find(where, "is not in the namespace reelyard")
    if findings:
        return
    listed = documents(folder / "kustomization.yaml")[0]["resources"]
    missing = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "secrets.example.yaml"} - set(listed)
    if missing or any(not (folder / name).exists() for name in listed):
        find("kustomization.yaml", f"lists {listed}; not listed: {missing}")
    named = {(thing["kind"], thing["metadata"]["name"]): thing for _, thing in things}
    for where, thing in things:
        if thing["kind"] == "Deployment":
            deployment(where, thing, named)
        if thing["kind"] in ("ScaledObject", "HorizontalPodAutoscaler"):
            target = thing["spec"]["scaleTargetRef"]["name"]
            if ("Deployment", target) not in named:
                find(where, f"scales {target}, which does not exist")
        if thing["kind"] == "Secret":
            for key, value in thing["stringData"].items():
                if value:
                    find(where, f"{key} has a value: an example that works is a public password")


def deployment(where, thing, named):
    name, pod = thing["metadata"]["name"], pod_of(thing)
    where = f"{where} {name}"
    labels = thing["spec"]["template"]["metadata"]["labels"]
    if thing["spec"]["selector"]["matchLabels"] != labels:
        find(where, "does not select its own pods")
    container = pod["containers"][0]
    wanted = [source["secretRef"]["name"] for source in container["envFrom"]]
    wanted += [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    for secret in wanted:
        if ("Secret", secret) not in named:
            find(where, f"wants the secret {secret}, which secrets.example.yaml does not show")
    if name.startswith("reelyard-worker") and "reelyard-database" in wanted:
        find(where, "a worker holds the password of the database")
    volumes = {volume["name"] for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            find(where, f"mounts {mount['name']}, which does not exist")
        if "subPath" in mount and mount["subPath"] not in named["Secret", "reelyard-keys"]["stringData"]:
            find(where, f"mounts {mount['subPath']}, which is not in reelyard-keys")
    # What the namespace demands (Pod Security, restricted), so that it is refused here and not there.
    security = container["securityContext"]
    if (
        not pod["securityContext"].get("runAsNonRoot")
        or pod["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}
        or security.get("allowPrivilegeEscalation") is not False
        or not security.get("readOnlyRootFilesystem")
        or security.get("capabilities") != {"drop": ["ALL"]}
    ):
        find(where, "is not confined as the namespace demands")
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    grace = pod["terminationGracePeriodSeconds"]
    if "lifecycle" in container:
        grace -= int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = int(environment.get("REELYARD_DRAIN_SECONDS", 0))
    needed += WORKER_END_SECONDS if needed else API_END_SECONDS
    if grace < needed:
        find(where, f"is killed {needed - grace} s before it has ended by itself")


def main():
    made = secrets_are_made()
    # What no schema sees is looked for where the schemas have found nothing: a misspelt name would only confuse it.
    services = compose(made) if made else None
    if services:
        balancer(services)
    kubernetes()
    for finding in findings:
        print(f"check-deploy: {finding.strip()}")
    print(f"check-deploy: {len(findings)} findings")
    return 1 if findings else 0


sys.exit(main())
