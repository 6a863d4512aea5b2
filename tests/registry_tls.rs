//! Registries with certificates of a private authority: `certs.d` and `SSL_CERT_FILE`.

mod support;

use std::fs;
use std::path::PathBuf;

use support::{Kiln, Registry, TestAuthority};

/// Returns the user's directory of certificates for a registry.
fn certificates(kiln: &Kiln, registry: &Registry) -> PathBuf {
    let name = format!("home/.config/containers/certs.d/{}", registry.address());
    kiln.sandbox().directory(&name, &[])
}

#[test]
fn unknown_authority_is_refused_with_the_place_for_its_certificate() {
    let authority = TestAuthority::new();
    let registry = Registry::start_with_tls(&authority, false);
    let kiln = Kiln::new();
    let name = registry.busybox();
    let (repository, tag) = name.rsplit_once(':').unwrap();
    assert_eq!(
        kiln.run(["pull", &name]).fails().stderr(),
        format!(
            "error: {repository}: manifest {tag}: the certificate is not trusted: \
             its issuer is unknown\n\
             hint: put the registry's CA into ~/.config/containers/certs.d/{}/ca.crt or among \
             the system's certificates, or name it in SSL_CERT_FILE\n",
            registry.address()
        )
    );
    fs::copy(
        authority.certificate(),
        certificates(&kiln, &registry).join("ca.crt"),
    )
    .unwrap();
    kiln.run(["pull", &name]).ok();
    let copy = registry.reference("copy:1");
    kiln.run(["tag", &name, &copy]).ok();
    kiln.run(["push", &copy]).ok();
}

#[test]
fn authority_of_ssl_cert_file_is_trusted_and_of_another_registry_not() {
    let authority = TestAuthority::new();
    let registry = Registry::start_with_tls(&authority, false);
    let kiln = Kiln::new();
    kiln.sandbox()
        .directory("home/.config/containers/certs.d/127.0.0.1:1", &[]);
    let other = kiln
        .sandbox()
        .join("home/.config/containers/certs.d/127.0.0.1:1/ca.crt");
    fs::copy(authority.certificate(), other).unwrap();
    kiln.run(["pull", &registry.busybox()])
        .fails_with("its issuer is unknown");
    let kiln = kiln.env("SSL_CERT_FILE", authority.certificate());
    kiln.run(["pull", &registry.busybox()]).ok();
}

#[test]
fn insecure_registry_of_registries_conf_needs_no_authority() {
    let registry = Registry::start_with_tls(&TestAuthority::new(), false);
    let kiln = Kiln::new();
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address()
    );
    kiln.sandbox()
        .directory("home/.config/containers", &[("registries.conf", &text)]);
    kiln.run(["pull", &registry.busybox()]).ok();
}

#[test]
fn registry_that_asks_for_a_client_certificate_gets_it() {
    let authority = TestAuthority::new();
    let registry = Registry::start_with_tls(&authority, true);
    let kiln = Kiln::new();
    let directory = certificates(&kiln, &registry);
    fs::copy(authority.certificate(), directory.join("ca.crt")).unwrap();
    let name = registry.busybox();
    let (repository, tag) = name.rsplit_once(':').unwrap();
    assert_eq!(
        kiln.run(["pull", &name]).fails().stderr(),
        format!(
            "error: {repository}: manifest {tag}: the registry asks for a client certificate\n\
             hint: put yours into ~/.config/containers/certs.d/{}/client.cert, and its key \
             beside it into client.key\n",
            registry.address()
        )
    );
    let (certificate, key) = authority.issue("127.0.0.1");
    fs::copy(certificate, directory.join("client.cert")).unwrap();
    let missing = directory.join("client.key");
    let output = kiln.run(["pull", &name]).fails();
    let expected = format!("{}: No such file or directory", missing.display());
    assert!(output.stderr().contains(&expected), "{output}");
    // A key of another certificate.
    let another = TestAuthority::new();
    let (_, other) = another.issue("127.0.0.1");
    fs::copy(&other, &missing).unwrap();
    let output = kiln.run(["pull", &name]).fails();
    let expected = format!(
        "{}: no key for {}: ",
        missing.display(),
        directory.join("client.cert").display()
    );
    assert!(output.stderr().contains(&expected), "{output}");
    fs::copy(&key, &missing).unwrap();
    kiln.run(["pull", &name]).ok();
}

#[test]
fn certificates_come_from_the_directory_that_is_named() {
    let authority = TestAuthority::new();
    let registry = Registry::start_with_tls(&authority, false);
    let kiln = Kiln::new();
    let directory = kiln.sandbox().directory("certificates", &[]);
    fs::copy(authority.certificate(), directory.join("ca.crt")).unwrap();
    let directory = directory.to_str().unwrap();
    let name = registry.busybox();
    kiln.run(["pull", "--cert-dir", directory, &name]).ok();
    let copy = registry.reference("copy:1");
    kiln.run(["tag", &name, &copy]).ok();
    kiln.run(["push", &copy])
        .fails_with("its issuer is unknown");
    kiln.run(["push", "--cert-dir", directory, &copy]).ok();
    let layout = format!("oci:{}:1", kiln.sandbox().join("layout").to_str().unwrap());
    let arguments = ["copy", "--src-cert-dir", directory, &copy, &layout];
    kiln.run(arguments).ok();
    kiln.run(["rmi", &name, &copy]).ok();
    kiln.run(["create", "--cert-dir", directory, &copy, "x"])
        .ok();
    kiln.run(["create", "--pull=always", &copy, "x"])
        .fails_with("its issuer is unknown");
    kiln.run(["create", "--pull=always", "--tls-verify=false", &copy, "x"])
        .ok();
    let dockerfile = format!("FROM {name}\nCOPY a /a\n");
    kiln.build_with(&["--cert-dir", directory], &dockerfile, &[("a", "a")])
        .ok();
    let nowhere = kiln.sandbox().join("nowhere");
    assert_eq!(
        kiln.run(["pull", "--cert-dir", nowhere.to_str().unwrap(), &name])
            .fails()
            .stderr(),
        format!(
            "error: {}: No such file or directory (os error 2)\n",
            nowhere.display()
        )
    );
}
