//! A certificate authority that nobody knows, made with openssl.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Sandbox, run};

/// The time limit of openssl.
const LIMIT: Duration = Duration::from_secs(60);

/// An authority of a test.
pub struct TestAuthority {
    sandbox: Sandbox,
}

impl TestAuthority {
    /// Makes an authority.
    pub fn new() -> Self {
        let authority = Self {
            sandbox: Sandbox::new(),
        };
        authority.openssl("-x509", "ca", &["-subj", "/CN=kiln tests"]);
        authority
    }

    /// Returns the file of its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.sandbox.join("ca.crt")
    }

    /// Issues a certificate for an address, and returns its file and that of its key.
    pub fn issue(&self, address: &str) -> (PathBuf, PathBuf) {
        let name = format!("subjectAltName=IP:{address}");
        let (ca, key) = (self.certificate(), self.sandbox.join("ca.key"));
        let signed = [
            "-subj",
            "/CN=issued",
            "-addext",
            &name,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            ca.to_str().unwrap(),
            "-CAkey",
            key.to_str().unwrap(),
        ];
        self.openssl("-x509", "issued", &signed);
        (
            self.sandbox.join("issued.crt"),
            self.sandbox.join("issued.key"),
        )
    }

    fn openssl(&self, kind: &str, name: &str, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        command
            .args(["req", kind, "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout"])
            .arg(self.sandbox.join(format!("{name}.key")))
            .arg("-out")
            .arg(self.sandbox.join(format!("{name}.crt")))
            .args(arguments);
        run(&mut command, LIMIT).ok();
    }
}
