"""Keylime's agent of release 6.6.0, the last one that is written in Python, for a device that is not this machine.

IMA_ML is the measurement list that it reads, in the place of the kernel's. See tests/keylime-attestation.
"""

import os

from keylime import config, json, keylime_agent, registrar_client

config.IMA_ML = os.environ["IMA_ML"]
# There is no event log of a firmware.
config.MEASUREDBOOT_ML = "/nonexistent"
# Its keys are in the temporary directory: no tmpfs is mounted.
config.MOUNT_SECURE = False

register = registrar_client.doRegisterAgent


class Client(registrar_client.RequestsClient):
    """Says what agents of release 7 say, and registrars of that release want: the type of a body, and the endorsement key beside its
    certificate (RegistrarAgent._check_root_identity_presence).
    """

    ek_tpm = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, headers={"Content-Type": "application/json"}, **options)

    def post(self, url, *, data):  # pylint: disable=arguments-differ
        return super().post(url, data=json.dumps({**json.loads(data), "ek_tpm": self.ek_tpm}))


def register_with_key(registrar_ip, registrar_port, agent_id, ek_tpm, *arguments, **options):
    """Registers the agent, with its endorsement key."""
    Client.ek_tpm = ek_tpm
    return register(registrar_ip, registrar_port, agent_id, ek_tpm, *arguments, **options)


registrar_client.RequestsClient = Client
registrar_client.doRegisterAgent = register_with_key
keylime_agent.main()
