//! Chains of certificates, from a key that signs files up to a CA that is trusted.

use ima::certificate::Certificate;

use crate::verifier::verify_certificate;

/// The longest chain that is followed, CA and leaf included.
const MAX_CHAIN: usize = 8;

/// Why a certificate is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unused {
    /// The kernel would not take it for a keyring of signing keys.
    #[error("{0}")]
    Defect(String),
    /// No chain leads from it to a CA that was given.
    #[error("no CA that was given signed it or its issuer; it names {0} as its issuer")]
    NoChain(String),
}

/// Whether `certificate` is one for signing files and one of `authorities` signed it, directly or by way of CA certificates
/// among `others`.
///
/// # Errors
///
/// [`Unused`] says why not.
pub fn check(
    certificate: &Certificate,
    authorities: &[Certificate],
    others: &[Certificate],
) -> Result<(), Unused> {
    if let Some(defect) = certificate.leaf_defects().first() {
        return Err(Unused::Defect(defect.to_string()));
    }
    if leads_to(certificate, authorities, others) {
        Ok(())
    } else {
        Err(Unused::NoChain(certificate.issuer()))
    }
}

/// Whether one of `authorities` signed `certificate`, directly or by way of CA certificates among `others`.
#[must_use]
pub fn leads_to(
    certificate: &Certificate,
    authorities: &[Certificate],
    others: &[Certificate],
) -> bool {
    leads_up(certificate, authorities, others, MAX_CHAIN)
}

fn leads_up(
    certificate: &Certificate,
    authorities: &[Certificate],
    others: &[Certificate],
    left: usize,
) -> bool {
    let signed_by = |issuer: &&Certificate| verify_certificate(certificate, issuer).is_ok();
    if authorities.iter().any(|issuer| signed_by(&issuer)) {
        return true;
    }
    // Each step looks at certificates that this one names and that signed it, so a ring of them ends by its length.
    left > 2
        && others
            .iter()
            .filter(|issuer| issuer.is_ca() && *issuer != certificate)
            .filter(signed_by)
            .any(|issuer| leads_up(issuer, authorities, others, left - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind, Signer};
    use crate::x509::Template;

    struct Pair(FileKey, Certificate);

    fn made(template: Template, issuer: Option<&Pair>) -> Pair {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let issuer = issuer.map(|issuer| (&issuer.0 as &dyn Signer, &issuer.1));
        let certificate = template.sign(&key, issuer, None).unwrap();
        Pair(key, certificate)
    }

    #[test]
    fn chains() {
        let root = made(Template::ca("root"), None);
        let middle = made(Template::ca("middle"), Some(&root));
        let lower = made(Template::ca("lower"), Some(&middle));
        let leaf = made(Template::leaf("leaf"), Some(&lower));
        let under_leaf = made(Template::leaf("under a leaf"), Some(&leaf));
        let stranger = made(Template::ca("root"), None);
        let alone = made(Template::leaf("alone"), None);
        let certificates = |pairs: &[&Pair]| -> Vec<Certificate> {
            pairs.iter().map(|pair| pair.1.clone()).collect()
        };
        for (name, pair, authorities, others, good) in [
            ("whole", &leaf, &[&root][..], &[&lower, &middle][..], true),
            ("direct", &leaf, &[&lower], &[], true),
            ("from the middle", &leaf, &[&middle], &[&lower], true),
            ("a link missing", &leaf, &[&root], &[&lower], false),
            ("no CA", &leaf, &[], &[&lower, &middle, &root], false),
            (
                "another CA of the same name",
                &leaf,
                &[&stranger],
                &[&lower, &middle],
                false,
            ),
            (
                "by a leaf",
                &under_leaf,
                &[&root],
                &[&leaf, &lower, &middle],
                false,
            ),
            ("self-signed", &alone, &[&root], &[&alone], false),
            ("a CA itself", &middle, &[&root], &[], false),
        ] {
            let found = check(&pair.1, &certificates(authorities), &certificates(others));
            assert_eq!(found.is_ok(), good, "{name}: {found:?}");
        }
    }
}
