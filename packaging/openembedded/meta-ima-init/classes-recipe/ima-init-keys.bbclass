# Keys, policy and configuration of ima-init, for the recipes that need them: images, the initramfs, the kernel.
# docs/how-to/openembedded.md describes the variables.

# Private key that signs files (a file or a pkcs11: URI), its certificate, and the CA that signed this (PEM). Without a key, sample
# keys are made.
IMA_INIT_KEY ??= ""
IMA_INIT_CERT ??= ""
IMA_INIT_CA ??= ""
# File whose first line is the password of the private keys.
IMA_INIT_KEY_PASSWORD_FILE ??= ""
# The same for portable signatures in security.evm, which are made if both are set.
IMA_INIT_EVM_KEY ??= ""
IMA_INIT_EVM_CERT ??= ""
# The policy of the initramfs, by which the files to be signed are chosen too.
IMA_INIT_POLICY ??= "${STAGING_DATADIR}/ima-init/ima_policy.default"
# ima-init.conf; empty for the defaults of the init.
IMA_INIT_CONFIG ??= ""

IMA_INIT_SAMPLE_KEYS = "${STAGING_DATADIR_NATIVE}/ima-init/sample-keys"
IMA_INIT_USED_KEY = "${@d.getVar('IMA_INIT_KEY') or '${IMA_INIT_SAMPLE_KEYS}/ima.key'}"
IMA_INIT_USED_CERT = "${@d.getVar('IMA_INIT_CERT') or '${IMA_INIT_SAMPLE_KEYS}/ima.der'}"
IMA_INIT_USED_CA = "${@d.getVar('IMA_INIT_CA') or '${IMA_INIT_SAMPLE_KEYS}/ca.pem'}"
IMA_INIT_KEYS_DEPENDS = "${@'' if d.getVar('IMA_INIT_KEY') else 'ima-init-sample-keys-native'}"

# Arguments of imactl's commands that sign.
IMA_INIT_SIGNER = "--key '${IMA_INIT_USED_KEY}' --cert '${IMA_INIT_USED_CERT}' ${IMA_INIT_EVM_SIGNER} ${IMA_INIT_PASSWORD}"
IMA_INIT_EVM_SIGNER = "${@'--evm-key ${IMA_INIT_EVM_KEY} --evm-cert ${IMA_INIT_EVM_CERT} ${IMA_INIT_EVM_BITS}' if d.getVar('IMA_INIT_EVM_KEY') else ''}"
# A 32-bit kernel and a 64-bit one compute security.evm in different ways.
IMA_INIT_EVM_BITS = "${@'--evm-32-bit' if d.getVar('SITEINFO_BITS') == '32' else ''}"
IMA_INIT_PASSWORD = "${@'--password-file ${IMA_INIT_KEY_PASSWORD_FILE}' if d.getVar('IMA_INIT_KEY_PASSWORD_FILE') else ''}"

# What a task that uses these files depends on. A key may be in a token; the certificate changes with it.
IMA_INIT_FILE_CHECKSUMS = "${@ima_init_file_checksums(d)}"

def ima_init_file_checksums(d):
    names = ["IMA_INIT_CERT", "IMA_INIT_CA", "IMA_INIT_EVM_CERT", "IMA_INIT_POLICY", "IMA_INIT_CONFIG"]
    paths = [d.getVar(name) for name in names]
    return " ".join(path + ":True" for path in paths if path and not path.startswith(d.getVar("WORKDIR")))

inherit siteinfo

python () {
    keys = ["IMA_INIT_KEY", "IMA_INIT_CERT", "IMA_INIT_CA"]
    missing = [name for name in keys if not d.getVar(name)]
    if missing and len(missing) < len(keys):
        bb.fatal("%s: set IMA_INIT_KEY, IMA_INIT_CERT and IMA_INIT_CA together, or none of them; missing: %s"
                 % (d.getVar("PN"), " ".join(missing)))
    if bool(d.getVar("IMA_INIT_EVM_KEY")) != bool(d.getVar("IMA_INIT_EVM_CERT")):
        bb.fatal("%s: set IMA_INIT_EVM_KEY and IMA_INIT_EVM_CERT together" % d.getVar("PN"))
}

python ima_init_warn_of_sample_keys () {
    if not d.getVar("IMA_INIT_KEY"):
        bb.warn("%s uses SAMPLE KEYS, because IMA_INIT_KEY is not set. Everybody knows their password. "
                "Do not ship what is built: set IMA_INIT_KEY, IMA_INIT_CERT and IMA_INIT_CA." % d.getVar("PN"))
}
