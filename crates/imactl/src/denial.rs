//! What the kernel's records of denials mean, and what to do about each.

use ima::audit::IntegrityRecord;

/// What a cause in a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The meaning, a clause about the file.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const SIGN: &str = "imactl sign --key KEY --cert CERTIFICATE FILE, if the file is to be trusted";
const VERIFY: &str =
    "imactl verify --cert CERTIFICATE FILE tells which; then install it or sign it again";

/// The causes by which the kernel denies (security/integrity/ima/ima_appraise.c and ima_main.c, Linux 6.1 to 7.2).
const CAUSES: [(&str, Explanation); 18] = [
    (
        "IMA-signature-required",
        Explanation {
            meaning: "it has no signature, or only a hash",
            remedy: SIGN,
        },
    ),
    (
        "missing-hash",
        Explanation {
            meaning: "it has no security.ima",
            remedy: SIGN,
        },
    ),
    (
        "invalid-signature",
        Explanation {
            meaning: "it was changed after it was signed, or its key is not on the keyring",
            remedy: VERIFY,
        },
    ),
    (
        "invalid-hash",
        Explanation {
            meaning: "it was changed after it was hashed",
            remedy: VERIFY,
        },
    ),
    (
        "invalid-verity-signature",
        Explanation {
            meaning: "the signature of its fs-verity digest is not good",
            remedy: VERIFY,
        },
    ),
    (
        "verity-signature-required",
        Explanation {
            meaning: "it has no signature of its fs-verity digest",
            remedy: "enable fs-verity on the file and sign the digest with imactl sign --verity",
        },
    ),
    (
        "IMA-sigv3-required",
        Explanation {
            meaning: "its signature is not of version 3, which the policy asks for",
            remedy: "sign it with imactl sign --sigv3",
        },
    ),
    (
        "invalid-signature-version",
        Explanation {
            meaning: "its signature is of a version that this kernel does not take for it",
            remedy: "sign it with the version that the policy asks for; imactl verify shows the one it has",
        },
    ),
    (
        "blacklisted-hash",
        Explanation {
            meaning: "its digest is on the kernel's blacklist",
            remedy: "replace it by a version that is not revoked",
        },
    ),
    (
        "denied-hash-algorithm",
        Explanation {
            meaning: "its digest is of an algorithm that the policy does not allow",
            remedy: "sign it with an algorithm that appraise_algos= lists",
        },
    ),
    (
        "unavailable-hash-algorithm",
        Explanation {
            meaning: "the kernel does not have its hash algorithm",
            remedy: "sign it with another algorithm, such as sha256",
        },
    ),
    (
        "failed-mprotect",
        Explanation {
            meaning: "it was mapped and only then made executable, which goes round appraisal",
            remedy: "none if an attack is possible; a program that does this cannot run under this policy",
        },
    ),
    (
        "unverifiable-signature",
        Explanation {
            meaning: "it is on a file system such as FUSE, whose content nobody can vouch for",
            remedy: "copy it to a local file system, and sign it there",
        },
    ),
    (
        "unknown-ima-data",
        Explanation {
            meaning: "its security.ima is of an unknown type",
            remedy: SIGN,
        },
    ),
    (
        "missing-HMAC",
        Explanation {
            meaning: "it has no security.evm",
            remedy: "sign it with imactl sign --evm-key",
        },
    ),
    (
        "invalid-HMAC",
        Explanation {
            meaning: "its owner, mode or attributes are not those that security.evm covers",
            remedy: "restore them, or sign it again with imactl sign --evm-key",
        },
    ),
    (
        "invalid-fail-immutable",
        Explanation {
            meaning: "its owner, mode or attributes are not those that its portable EVM signature covers",
            remedy: "restore them, or sign it again with imactl sign --evm-key",
        },
    ),
    (
        "no-verity-digest",
        Explanation {
            meaning: "fs-verity is not enabled on it",
            remedy: "enable fs-verity on the file and sign the digest with imactl sign --verity",
        },
    ),
];

/// What the cause of a record means.
#[must_use]
pub fn explain(cause: &str) -> Explanation {
    CAUSES.iter().find(|(known, _)| *known == cause).map_or(
        Explanation {
            meaning: "the kernel denied it for a reason that imactl does not know",
            remedy: "imactl verify --cert CERTIFICATE FILE",
        },
        |(_, explanation)| *explanation,
    )
}

/// Whether it is the record of the init's canary, which is denied on purpose: PID 1 executes it on a file system that is mounted
/// nowhere, so that its path is its bare name.
#[must_use]
pub fn is_canary(record: &IntegrityRecord) -> bool {
    record.process == 1 && record.name.as_deref() == Some(b"canary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_explained() {
        for (cause, explanation) in CAUSES {
            assert_eq!(explain(cause), explanation, "{cause}");
        }
        assert!(explain("new-cause").meaning.contains("does not know"));
    }

    #[test]
    fn only_the_canary_of_the_init_is_the_canary() {
        let record = |pid: u32, name: &str| {
            let line = format!(
                "audit: type=1800 audit(1.5:7): pid={pid} uid=0 op=appraise_data cause=x comm=\"a\" name=\"{name}\" res=0"
            );
            IntegrityRecord::parse(&line).unwrap()
        };
        assert!(is_canary(&record(1, "canary")));
        assert!(!is_canary(&record(2, "canary")));
        assert!(!is_canary(&record(1, "/canary")));
    }
}
