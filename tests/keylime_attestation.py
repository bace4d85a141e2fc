"""Attests a device with Keylime's registrar, verifier, tenant and agent, all on loopback. See tests/keylime-attestation.

Arguments: the directories of Keylime and of the release with the agent, then those of tests/keylime-attestation. Everything the
services read or write is in a temporary directory, and they listen on 127.0.0.1 alone.
"""

import configparser
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HOST = "127.0.0.1"
AGENT = "d432fbb3-d2f1-4a97-9ef7-75bd81c00000"
# How long anything may take, in seconds: the services start on a machine that may be busy with other tests.
PATIENCE = 120
# The states in which the verifier has given the device up (keylime.common.states).
FAILED = {7: "failed", 9: "invalid quote", 10: "tenant failed"}
# Quotes that the verifier must have accepted before a device counts as accepted: the second one has no entries that are new.
QUOTES = 2


def wait_for(what, condition):
    """Returns what `condition` returns as soon as that is neither None nor False."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {PATIENCE} seconds")
        time.sleep(0.1)


def free_ports(count):
    """Returns ports that nobody listens on, the first two of them neighbours: the control port of swtpm follows its port."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind((HOST, 0))
            port = sockets[0].getsockname()[1]
            sockets[1].bind((HOST, port + 1))
            for other in sockets[2:]:
                other.bind((HOST, 0))
            return [each.getsockname()[1] for each in sockets]
        except (OSError, OverflowError):
            continue
        finally:
            for each in sockets:
                each.close()


def extend(digest, value, algorithm):
    """Returns what a PCR is after it was extended."""
    return hashlib.new(algorithm, digest + value).digest()


def entry(program, content):
    """Returns a line of the template ima-ng: that the kernel measured `content` as `program`."""
    digest = b"sha256:\0" + hashlib.sha256(content).digest()
    name = program.encode() + b"\0"
    data = b"".join(len(field).to_bytes(4, "little") + field for field in (digest, name))
    return f"10 {hashlib.sha1(data).hexdigest()} ima-ng sha256:{hashlib.sha256(content).hexdigest()} {program}"


class Services:
    """The processes: a TPM, and the services of Keylime."""

    def __init__(self, directory, keylime, agent):
        self.directory = directory
        self.releases = {"server": keylime, "agent": agent}
        self.list = directory / "list"
        self.tpm, _, self.registrar, self.registrar_tls, self.verifier, self.agent = free_ports(6)
        self.processes = {}
        self.environment = {
            **os.environ,
            "TPM2TOOLS_TCTI": f"swtpm:host={HOST},port={self.tpm}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "IMA_ML": str(self.list),
        }

    def configure(self, name, sections):
        """Writes the configuration `name`, and has Keylime read no other one, such as that of this machine."""
        path = self.directory / f"{name}.conf"
        parser = configparser.RawConfigParser()
        parser.read_dict(sections)
        with open(path, "w", encoding="utf-8") as file:
            parser.write(file)
        self.environment[f"KEYLIME_{name.upper()}_CONFIG"] = str(path)

    def configure_all(self, algorithm):
        """Writes the configuration of all services. What Keylime's own templates say is left out where it has a default in the code."""
        server = {"server_cert": "default", "server_key": "default", "server_key_password": "", "trusted_client_ca": "default"}
        client = {"client_cert": "default", "client_key": "default", "client_key_password": "", "trusted_server_ca": "default"}
        database = {"database_url": "sqlite", "database_pool_sz_ovfl": "5,10", "auto_migrate_db": "True"}
        retries = {"retry_interval": "0.5", "exponential_backoff": "False", "max_retries": "20"}
        algorithms = {
            "accept_tpm_hash_algs": [algorithm],
            "accept_tpm_encryption_algs": ["rsa"],
            "accept_tpm_signing_algs": ["rsassa"],
        }
        self.configure(
            "verifier",
            {
                "verifier": {
                    "ip": HOST, "port": self.verifier, "tls_dir": "generate", **server, **client, **database, **retries,
                    "enable_agent_mtls": "True", "num_workers": "1", "quote_interval": "0.5", "request_timeout": "60",
                    "measured_boot_imports": "[]", "measured_boot_policy_name": "accept-all",
                    "severity_labels": '["info", "emergency"]',
                    "severity_policy": '[{"event_id": ".*", "severity_label": "emergency"}]',
                },
                "revocations": {"enabled_revocation_notifications": "[]"},
            },
        )
        self.configure(
            "registrar",
            {
                "registrar": {
                    "ip": HOST, "port": self.registrar, "tls_port": self.registrar_tls, "tls_dir": "default", **server, **database,
                    "malformed_cert_action": "warn",
                }
            },
        )
        self.configure(
            "tenant",
            {
                "tenant": {
                    "verifier_ip": HOST, "verifier_port": self.verifier, "registrar_ip": HOST, "registrar_port": self.registrar_tls,
                    "tls_dir": "default", **client, **retries, **algorithms, "enable_agent_mtls": "True", "request_timeout": "60",
                    "require_ek_cert": "True", "ek_check_script": "", "tpm_cert_store": self.directory / "tpm-cas",
                    "max_payload_size": "1048576", "mb_refstate": "",
                }
            },
        )
        self.configure(
            "agent",
            {
                "agent": {
                    "uuid": AGENT, "ip": HOST, "port": self.agent, "contact_ip": HOST, "contact_port": self.agent,
                    "registrar_ip": HOST, "registrar_port": self.registrar, "tls_dir": "default", "enable_agent_mtls": "True",
                    "server_cert": "agent.crt", "server_key": "agent.key", "server_key_password": "",
                    "trusted_client_ca": json.dumps([str(self.directory / "server/cv_ca/cacert.crt")]),
                    "enc_keyname": "key", "dec_payload_file": "payload", "payload_script": "", "extract_payload_zip": "False",
                    "measure_payload_pcr": "-1", "ek_handle": "generate", "tpm_ownerpassword": "", "tpm_hash_alg": algorithm,
                    "tpm_encryption_alg": "rsa", "tpm_signing_alg": "rsassa", "revocation_cert": "default",
                    "enable_revocation_notifications": "False", "max_retries": "5", "retry_interval": "0.5",
                    "exponential_backoff": "False",
                }
            },
        )
        self.configure(
            "ca",
            {
                "ca": {
                    "password": "default", "cert_country": "US", "cert_ca_name": "Keylime", "cert_state": "-", "cert_locality": "-",
                    "cert_organization": "-", "cert_org_unit": "-", "cert_ca_lifetime": "30", "cert_lifetime": "30",
                    "cert_bits": "2048", "cert_crl_dist": f"http://{HOST}/crl",
                }
            },
        )
        self.configure(
            "logging",
            {
                "formatters": {"keys": "plain"},
                "formatter_plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"},
                "handlers": {"keys": "console"},
                "handler_console": {"class": "StreamHandler", "formatter": "plain", "args": "(sys.stderr,)"},
                "loggers": {"keys": "root"},
                "logger_root": {"level": "INFO", "handlers": "console"},
            },
        )

    def log(self, name):
        return self.directory / f"{name}.log"

    def run(self, *command):
        """Runs a program that must succeed, and returns its output."""
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def python(self, release, *command):
        """Returns the command that runs Keylime, and its environment."""
        environment = {
            **self.environment,
            "PYTHONPATH": self.releases[release],
            "KEYLIME_DIR": str(self.directory / release),
        }
        return [sys.executable, *command], environment

    def start(self, name, command, environment):
        """Starts a service in a process group of its own: those of Keylime fork."""
        with open(self.log(name), "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, env=environment, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check(self, name):
        """Raises an exception if the service has ended."""
        if self.processes[name].poll() is not None:
            raise RuntimeError(f"{name} ended")

    def start_and_wait(self, name, port, command, environment):
        """Starts a service, and waits until it listens."""

        def listens():
            self.check(name)
            try:
                with socket.create_connection((HOST, port), timeout=PATIENCE):
                    return True
            except ConnectionRefusedError:
                return False

        self.start(name, command, environment)
        wait_for(f"{name} listens", listens)

    def stop(self):
        """Ends all processes."""
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def start_tpm(self, algorithm):
        """Makes a TPM with a certificate of its endorsement key, by a CA that the tenant trusts, and starts it."""
        state, authority, trusted = (self.directory / name for name in ("tpm", "tpm-ca", "tpm-cas"))
        for directory in (state, authority, trusted):
            directory.mkdir()
        files = {
            "localca.conf": f"statedir = {authority}\nsigningkey = {authority}/key.pem\nissuercert = {authority}/ca.pem\n"
            f"certserial = {authority}/serial\n",
            "localca.options": "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n",
            "setup.conf": f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
            f"create_certs_tool_config = {self.directory}/localca.conf\n"
            f"create_certs_tool_options = {self.directory}/localca.options\n",
        }
        for name, content in files.items():
            (self.directory / name).write_text(content, encoding="utf-8")
        # As root it would become the user tss, who may not write here.
        user = ["--runas", "root"] if os.geteuid() == 0 else []
        self.run(
            "swtpm_setup", "--tpm2", *user, "--tpmstate", str(state), "--config", str(self.directory / "setup.conf"),
            "--create-ek-cert", "--lock-nvram", "--pcr-banks", algorithm, "--overwrite",
        )
        shutil.copy(authority / "ca.pem", trusted)
        self.start_and_wait(
            "tpm", self.tpm,
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=tcp,port={self.tpm},bindaddr={HOST}",
                "--ctrl", f"type=tcp,port={self.tpm + 1},bindaddr={HOST}", "--flags", "not-need-init,startup-clear",
            ],
            self.environment,
        )

    def start_keylime(self):
        """Starts the services of Keylime. The verifier makes the keys of all of them."""
        for release in self.releases:
            (self.directory / release).mkdir()
        program = ["-c", "import importlib, sys; importlib.import_module(sys.argv.pop(1)).main()"]
        self.start_and_wait("verifier", self.verifier, *self.python("server", *program, "keylime.cmd.verifier"))
        self.start_and_wait("registrar", self.registrar, *self.python("server", *program, "keylime.cmd.registrar"))
        agent = pathlib.Path(__file__).with_name("keylime_agent.py")
        self.start("agent", *self.python("agent", str(agent)))
        wait_for("the agent registers", lambda: self.check("agent") or self.known_to(self.registrar_tls))

    def tenant(self, *arguments):
        """Runs keylime_tenant."""
        command, environment = self.python("server", "-m", "keylime.cmd.tenant", *arguments)
        with open(self.log("tenant"), "ab") as log:
            subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PATIENCE, check=True
            )

    def known_to(self, port):
        """Returns what the verifier or the registrar knows of the device, or None if it does not know it."""
        keys = self.directory / "server/cv_ca"
        context = ssl.create_default_context(cafile=keys / "cacert.crt")
        # Its certificate is for no name, as Keylime's own clients expect it (keylime.web_util.generate_tls_context).
        context.check_hostname = False
        context.load_cert_chain(keys / "client-cert.crt", keys / "client-private.pem")
        try:
            with urllib.request.urlopen(
                f"https://{HOST}:{port}/v2.3/agents/{AGENT}", context=context, timeout=PATIENCE
            ) as answer:
                return json.load(answer)["results"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def verdict(self, stage, quotes):
        """Waits until the verifier has given the device up or accepted so many quotes, and returns which."""

        def decided():
            status = self.known_to(self.verifier)
            if status is None:
                return None
            if status["operational_state"] in FAILED or status["attestation_count"] >= quotes:
                return status
            return None

        status = wait_for(f"{stage}: the verifier decides", decided)
        return {
            "stage": stage,
            "state": FAILED.get(status["operational_state"], "accepted"),
            "quotes": status["attestation_count"],
            "event": status["last_event_id"],
        }


class Device:
    """The measurement list that the agent sends, and PCR 10."""

    def __init__(self, services, algorithm):
        self.services = services
        self.algorithm = algorithm

    def show(self, lines):
        """Has the agent read these lines, in the same file, which it keeps open."""
        with open(self.services.list, "r+" if self.services.list.exists() else "w", encoding="utf-8") as file:
            file.truncate()
            file.write("".join(f"{line}\n" for line in lines))

    def template_digest(self, line):
        """Returns the digest of an entry in the bank."""
        # pylint: disable-next=import-outside-toplevel # reads the configuration
        from keylime.common.algorithms import Hash
        from keylime.ima import ast

        return ast.Entry(line, pcr_hash_alg=Hash(self.algorithm)).pcr_template_hash

    def extend(self, lines):
        """Extends PCR 10, as the kernel does after it added an entry."""
        digests = [f"10:{self.algorithm}={self.template_digest(line).hex()}" for line in lines]
        self.services.run("tpm2_pcrextend", *digests)

    def pcr(self):
        """Returns PCR 10 in hexadecimal."""
        path = self.services.directory / "pcr"
        self.services.run("tpm2_pcrread", f"{self.algorithm}:10", "--output", str(path))
        return path.read_bytes().hex()


def stages(services, device, policy, lines):
    """Yields what the verifier decides at each stage."""

    def enrol(command):
        services.tenant("-c", command, "-u", AGENT, "-t", HOST, "--runtime-policy", policy)

    device.show(lines)
    enrol("add")
    verdict = services.verdict("as it booted", QUOTES)
    yield verdict

    # A program that the policy does not accept is executed while the verifier watches.
    extra = entry("/usr/bin/extra", b"extra")
    with open(services.list, "a", encoding="utf-8") as file:
        file.write(f"{extra}\n")
    device.extend([extra])
    yield services.verdict("another program is executed", verdict["quotes"] + 10)

    # The device hides it and is enrolled again.
    device.show(lines)
    enrol("update")
    yield services.verdict("its entry is removed", QUOTES)

    # It is hidden behind an entry that the policy accepts.
    device.show([*lines, lines[-1]])
    enrol("update")
    yield services.verdict("its entry is replaced", QUOTES)


def main():
    keylime, agent, policy, measurements, algorithm, pcr = sys.argv[1:]
    lines = pathlib.Path(measurements).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    with tempfile.TemporaryDirectory(prefix="keylime-") as directory:
        services = Services(pathlib.Path(directory), keylime, agent)
        services.configure_all(algorithm)
        # For template_digest: what is imported here reads the configuration.
        os.environ.update({name: value for name, value in services.environment.items() if name.startswith("KEYLIME_")})
        sys.path.insert(0, keylime)
        device = Device(services, algorithm)
        try:
            services.start_tpm(algorithm)
            device.extend(lines)
            if device.pcr() != pcr:
                raise RuntimeError(f"the list leads to {device.pcr()}, not to {pcr}")
            device.show(lines)
            services.start_keylime()
            print(json.dumps(list(stages(services, device, os.path.abspath(policy), lines)), indent=1))
        except BaseException:
            for log in sorted(services.directory.glob("*.log")):
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                print(f"--- {log.name}", *text[-40:], sep="\n", file=sys.stderr)
            raise
        finally:
            services.stop()


if __name__ == "__main__":
    main()
