//! `script_control=`: a script that is given to an interpreter as an argument, which IMA alone does not appraise.

use crate::attacks::{assert_said, attacked_by};
use crate::built::Kernel;
use crate::keys::RSA;
use crate::matrix::{Check, faults};
use crate::setup::Setup;

/// Has a program that asks the kernel, as interpreters do, read a signed script, an unsigned one, and a file that is not executable.
const INTERPRET: &str = r#"
for script in signed unsigned plain; do
    guest tool interpret /usr/lib/$script >/tmp/error; say "$script: $? $(cat /tmp/error)"
done
"#;

fn with_scripts(kernel: Kernel) -> Setup {
    let mut setup = attacked_by(INTERPRET);
    setup.kernel = kernel;
    let script = b"#!/bin/sh\n";
    setup.root.add_signed("usr/lib/signed", 0o755, script, &RSA);
    setup.root.add_signed("usr/lib/plain", 0o644, script, &RSA);
    setup.root.add("usr/lib/unsigned", 0o755, script);
    setup
}

/// Without it an interpreter reads what it is given.
#[test]
fn unsigned_script_is_read_without_it() {
    let setup = with_scripts(Kernel::Newer);
    assert_said(&setup, &["signed: 0", "unsigned: 0", "plain: 0"]);
}

#[test]
fn unsigned_script_is_refused() {
    let mut setup = with_scripts(Kernel::Newer);
    setup.configure("script_control=restrict-file deny-interactive");
    assert_said(
        &setup,
        &["signed: 0", "unsigned: 99 EACCES", "plain: 99 EACCES"],
    );
}

faults! {
    script_control_on_a_kernel_without_it: "IMA-114", Halt, Check::Same, |setup| {
        setup.configure("script_control=restrict-file");
        setup.says = "older than Linux 6.14";
    };
}
