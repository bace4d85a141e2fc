"""Has Keylime's verifier judge a measurement list: what keylime.tpm.tpm_main and keylime.cloud_verifier_common do with a quote whose
signature is good. See tests/keylime."""

import json
import sys

from keylime.agentstates import AgentAttestState
from keylime.common.algorithms import Hash
from keylime.ima import file_signatures, ima

policy, measurements, algorithm, pcr = sys.argv[1:]
with open(policy, "rb") as file:
    policy = ima.deserialize_runtime_policy(file.read().decode())
with open(measurements, encoding="utf-8") as file:
    lines = file.read().splitlines()

ima.validate_runtime_policy(policy)

keyrings = file_signatures.ImaKeyrings()
keyrings.set_tenant_keyring(file_signatures.ImaKeyring.from_string(policy["verification-keys"]))
state = AgentAttestState("device")
_, failure = ima.process_measurement_list(
    state, lines, policy, pcrval=pcr, ima_keyrings=keyrings, boot_aggregates={}, hash_alg=Hash(algorithm)
)
print(json.dumps([[event.event_id, event.context] for event in failure.events]))
