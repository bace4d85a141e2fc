use super::*;
use imactl::key::{FileKey, KeyKind};
use imactl::x509::{BasicConstraints, Template, Usage};

/// What a kernel with two built-in CAs shows; the first is the one that signs below.
const KEYS: &str = "\
0ac73a55 I------     2 perm 1f030000     0     0 keyring   .builtin_trusted_keys: 2
1249ad0a I------     1 perm 1f030000     0     0 asymmetri Local CA: 00aabbcc: X509.ecdsa 00aabbcc []
2249ad0a I------     1 perm 1f030000     0     0 asymmetri Vendor CA: 00ddeeff: X509.rsa 00ddeeff []
";

struct Desk {
    key: FileKey,
    authority: Certificate,
}

impl Desk {
    fn new() -> Self {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let authority = Template::ca("Local CA").sign(&key, None, None).unwrap();
        Self { key, authority }
    }

    fn certificate(&self, template: &Template) -> Certificate {
        let key = FileKey::generate(KeyKind::P384).unwrap();
        template
            .sign(&key, Some((&self.key, &self.authority)), None)
            .unwrap()
    }
}

fn kernel() -> Kernel {
    Kernel {
        keys: KEYS.to_owned(),
        platform: Vec::new(),
        crypto: "name         : ecdsa-nist-p256\ndriver       : x\n\nname         : sha256\n"
            .to_owned(),
        command_line: "root=/dev/vda ca_keys=id:1234 quiet".to_owned(),
    }
}

fn explained(certificate: &Certificate, errno: Errno, kernel: &Kernel) -> [String; 3] {
    let refused = Refused {
        path: "/etc/keys/x509_ima.der",
        certificate,
        keyring: ".ima",
        errno,
    };
    let fault = refused.explained(kernel);
    [fault.detail(), fault.cause(), fault.remedy()].map(str::to_owned)
}

#[test]
fn each_refusal_names_what_the_certificate_and_the_keyrings_tell() {
    let desk = Desk::new();
    let good = desk.certificate(&Template::leaf("leaf"));
    let with = |change: &dyn Fn(&mut Template)| {
        let mut template = Template::leaf("leaf");
        change(&mut template);
        desk.certificate(&template)
    };
    let authority = desk.authority.skid().map(hex::encode).unwrap();
    let ca = with(&|template| template.basic_constraints = BasicConstraints::Ca);
    let signs = with(&|template| {
        template.usage = Some(Usage {
            digital_signature: true,
            key_cert_sign: true,
        });
    });
    let unused = with(&|template| template.usage = None);
    let explicit = with(&|template| template.basic_constraints = BasicConstraints::ExplicitFalse);
    for (certificate, errno, words) in [
        // The issuer, by name and key id, and who is trusted.
        (
            &good,
            Errno::ENOKEY,
            vec![
                "CN=Local CA",
                &authority,
                "Local CA: 00aabbcc; Vendor CA: 00ddeeff",
            ],
        ),
        (&ca, Errno::ENOKEY, vec!["it is a CA certificate"]),
        (&signs, Errno::ENOKEY, vec!["keyCertSign"]),
        (
            &unused,
            Errno::ENOKEY,
            vec!["does not allow digitalSignature"],
        ),
        (&explicit, Errno::EBADMSG, vec!["CA:FALSE"]),
        // The issuer is there, the signature is wrong.
        (
            &good,
            Errno::EKEYREJECTED,
            vec!["is not of that CA's key", "CN=Local CA", "00aabbcc"],
        ),
        // The key's algorithm, not the hash, which is there.
        (
            &good,
            Errno::ENOPKG,
            vec!["this kernel has no ecdsa-nist-p384 (see /proc/crypto)"],
        ),
        (&good, Errno::EPERM, vec!["ca_keys=id:1234", "CN=Local CA"]),
    ] {
        let [what, cause, remedy] = explained(certificate, errno, &kernel());
        assert!(
            what.contains("/etc/keys/x509_ima.der") && what.contains("CN=leaf"),
            "{what}"
        );
        for word in words {
            assert!(cause.contains(word), "{errno}: {word} is not in: {cause}");
        }
        assert!(remedy.len() > 30, "{errno}: {remedy}");
    }
}

#[test]
fn a_kernel_that_shows_nothing_is_not_said_to_lack_anything() {
    let desk = Desk::new();
    let certificate = desk.certificate(&Template::leaf("leaf"));
    let [_, cause, _] = explained(&certificate, Errno::ENOPKG, &Kernel::default());
    assert!(cause.contains("P-384"), "{cause}");
    let [_, cause, _] = explained(&certificate, Errno::ENOKEY, &Kernel::default());
    assert!(cause.contains("it has none"), "{cause}");
}

#[test]
fn a_certificate_on_the_blacklist_is_told_from_one_with_a_wrong_signature() {
    let desk = Desk::new();
    let certificate = desk.certificate(&Template::leaf("leaf"));
    let digest = HashAlgorithm::Sha256.digest(certificate.tbs_der()).unwrap();
    let mut kernel = kernel();
    kernel.keys.push_str(&format!(
        "3249ad0a I------     1 perm 1f030000     0     0 blacklist tbs:{}: \n",
        hex::encode(&digest)
    ));
    let [_, cause, _] = explained(&certificate, Errno::EKEYREJECTED, &kernel);
    assert!(cause.contains(".blacklist"), "{cause}");
    let other = desk.certificate(&Template::leaf("other"));
    let [_, cause, _] = explained(&other, Errno::EKEYREJECTED, &kernel);
    assert!(!cause.contains(".blacklist"), "{cause}");
}
