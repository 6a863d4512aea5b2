//! Which credential is found where.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Output};
use std::sync::Mutex;

use super::*;

fn load(docker: &str) -> Result<Credentials, CredentialsError> {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), ".docker/config.json", docker);
    Credentials::load(&CredentialPaths {
        home: Some(home.path().to_owned()),
        ..CredentialPaths::default()
    })
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn basic(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[test]
fn docker_hub_has_several_names() {
    // me:pw
    let credentials =
        load(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="}}}"#).unwrap();
    assert_eq!(
        credentials.get("docker.io", "library/x").unwrap(),
        basic("me", "pw")
    );
    assert_eq!(credentials.get("r.example", "x").unwrap(), None);
}

#[test]
fn keys_are_hosts_urls_or_namespaces() {
    let credentials = load(
        r#"{"auths":{
            "https://url.example/v2/": {"username":"url","password":"1"},
            "r.example": {"username":"host","password":"2"},
            "r.example/team": {"username":"team","password":"3"},
            "r.example/team/app": {"username":"app","password":"4"},
            "port.example:5000": {"auth":"bWU6YTpi"}
        }}"#,
    )
    .unwrap();
    for (registry, repository, expected) in [
        ("url.example", "any", basic("url", "1")),
        ("r.example", "other", basic("host", "2")),
        ("r.example", "teams/x", basic("host", "2")),
        ("r.example", "team/x", basic("team", "3")),
        ("r.example", "team/app", basic("app", "4")),
        ("port.example:5000", "x", basic("me", "a:b")),
        ("port.example", "x", None),
    ] {
        let found = credentials.get(registry, repository).unwrap();
        assert_eq!(found, expected, "{registry}/{repository}");
    }
}

#[test]
fn tokens_are_told_apart_and_secrets_stay_out_of_debug_output() {
    let credentials = load(
        r#"{"auths":{
            "a": {"auth":"PHRva2VuPjo=","identitytoken":"refresh"},
            "b": {"registrytoken":"bearer"},
            "c": {}
        }}"#,
    )
    .unwrap();
    let get = |registry| credentials.get(registry, "x").unwrap();
    assert_eq!(get("a"), Some(Credential::IdentityToken("refresh".into())));
    assert_eq!(get("b"), Some(Credential::RegistryToken("bearer".into())));
    assert_eq!(get("c"), None);
    assert!(!format!("{:?}{:?}", get("a"), basic("u", "secret")).contains("secret"));
}

#[test]
fn podmans_file_is_the_fallback() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    write(
        root,
        "docker/config.json",
        r#"{"auths":{"a":{"auth":"ZDox"}}}"#,
    );
    let podman = r#"{"auths":{"a":{"auth":"cDox"},"b":{"auth":"cDox"}}}"#;
    write(root, "run/containers/auth.json", podman);
    write(root, "explicit.json", r#"{"auths":{"b":{"auth":"ZTox"}}}"#);
    let mut paths = CredentialPaths {
        docker_config: Some(root.join("docker")),
        xdg_runtime_dir: Some(root.join("run")),
        ..CredentialPaths::default()
    };
    let credentials = Credentials::load(&paths).unwrap();
    assert_eq!(credentials.get("a", "x").unwrap(), basic("d", "1"));
    assert_eq!(credentials.get("b", "x").unwrap(), basic("p", "1"));
    paths.registry_auth_file = Some(root.join("explicit.json"));
    let credentials = Credentials::load(&paths).unwrap();
    assert_eq!(credentials.get("b", "x").unwrap(), basic("e", "1"));
}

#[test]
fn files_that_do_not_exist_are_no_error() {
    let credentials = Credentials::load(&CredentialPaths {
        docker_config: Some("/nonexistent/kiln".into()),
        home: Some("/dev/null".into()),
        ..CredentialPaths::default()
    });
    assert_eq!(credentials.unwrap().get("a", "x").unwrap(), None);
    assert!(load("").unwrap().get("a", "x").unwrap().is_none());
}

#[test]
fn a_malformed_file_is_named_and_not_quoted() {
    for (text, place) in [
        ("{", "line 1"),
        (r#"{"auths":{"a":{"auth":["hunter2"]}}}"#, "line 1"),
        (r#"{"auths":"hunter2"}"#, "unexpected kind"),
    ] {
        let error = load(text).err().unwrap();
        let shown = error.to_string();
        assert!(
            shown.contains("config.json") && shown.contains(place),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(error.hint().is_some());
    }
    let credentials = load(r#"{"auths":{"a":{"auth":"!!"}}}"#).unwrap();
    let shown = credentials.get("a", "x").unwrap_err().to_string();
    assert!(shown.contains("not base64"), "{shown}");
}

/// Answers as helpers do, and records what it was asked.
#[derive(Default)]
struct Helpers(Mutex<Vec<String>>);

impl HelperRunner for Helpers {
    fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> io::Result<Output> {
        let server = String::from_utf8(stdin.to_vec()).unwrap();
        self.0
            .lock()
            .unwrap()
            .push(format!("{program} {} {server}", args.join(" ")));
        let (code, stdout) = match server.as_str() {
            "token.example" => (0, r#"{"Username":"<token>","Secret":"refresh"}"#),
            "none.example" => (1, "credentials not found in native keychain\n"),
            "broken.example" => (2, "the keychain is locked\n"),
            "missing.example" => return Err(io::ErrorKind::NotFound.into()),
            _ => (0, r#"{"ServerURL":"x","Username":"me","Secret":"pw"}"#),
        };
        Ok(Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.into(),
            stderr: Vec::new(),
        })
    }
}

#[test]
fn helpers_are_asked_by_the_names_that_the_file_gives() {
    let helpers = Arc::new(Helpers::default());
    let credentials = load(
        r#"{"credsStore":"all","credHelpers":{"one.example":"one"},
            "auths":{"none.example":{"auth":"bWU6ZmlsZQ=="}}}"#,
    )
    .unwrap()
    .with_helpers(helpers.clone());
    let get = |registry| credentials.get(registry, "x");
    assert_eq!(get("one.example").unwrap(), basic("me", "pw"));
    assert_eq!(get("docker.io").unwrap(), basic("me", "pw"));
    assert_eq!(get("none.example").unwrap(), basic("me", "file"));
    let token = Credential::IdentityToken("refresh".to_owned());
    assert_eq!(get("token.example").unwrap(), Some(token));
    assert_eq!(
        *helpers.0.lock().unwrap(),
        [
            "docker-credential-one get one.example",
            "docker-credential-all get https://index.docker.io/v1/",
            "docker-credential-all get none.example",
            "docker-credential-all get token.example",
        ]
    );
    for (registry, problem) in [
        ("broken.example", "the keychain is locked"),
        ("missing.example", "entity not found"),
    ] {
        let error = get(registry).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.hint().unwrap().contains("docker-credential-all"));
    }
}

#[test]
fn a_helper_is_no_path() {
    let credentials = load(r#"{"credsStore":"../../bin/sh"}"#)
        .unwrap()
        .with_helpers(Arc::new(Helpers::default()));
    assert!(credentials.get("a", "x").is_err());
}
