//! `kiln images`: the table and the JSON that people and scripts read.

mod support;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Published, settled, tar_of};

/// A store with two images: `one` has two names, `two` lost its own to another image.
struct Store {
    kiln: Kiln,
    registry: FaultyRegistry,
    one: Published,
    two: Published,
    three: Published,
}

fn store() -> Store {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let created = |year: u32| json!({"created": format!("{year}-01-01T00:00:00Z")});
    let one = registry.image_of("one", &tar_of(&[("a", &"a".repeat(1234))]), created(2001));
    let two = registry.image_of("two", &tar_of(&[("b", "b")]), created(2000));
    for tag in ["one", "two"] {
        kiln.run(["pull", &registry.reference(tag)]).ok();
    }
    kiln.run(["tag", &registry.reference("one"), "hello"]).ok();
    let three = registry.image_of("two", &tar_of(&[]), created(2002));
    kiln.run(["pull", &registry.reference("two")]).ok();
    Store {
        kiln,
        registry,
        one,
        two,
        three,
    }
}

/// Returns an id as tables show it.
fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

#[test]
fn table_has_docker_s_columns_and_the_newest_image_first() {
    let Store {
        kiln,
        registry,
        one,
        two,
        three,
    } = store();
    // The width of the first column depends on the port.
    let address = registry.address();
    let name = format!("{address}/app");
    let width = name.len();
    let shown = settled(&kiln.run(["images"]).ok().stdout(), &[]);
    let expected = [
        format!(
            "{:width$}   TAG       IMAGE ID       CREATED        SIZE",
            "REPOSITORY"
        ),
        format!(
            "{name}   two       {}   NN years ago   0B",
            short(&three.id)
        ),
        format!(
            "{name}   one       {}   NN years ago   1.23kB",
            short(&one.id)
        ),
        format!(
            "{:width$}   latest    {}   NN years ago   1.23kB",
            "hello",
            short(&one.id)
        ),
        format!(
            "{:width$}   <none>    {}   NN years ago   1B",
            "<none>",
            short(&two.id)
        ),
    ];
    assert_eq!(shown, expected.join("\n") + "\n");
}

#[test]
fn empty_store_shows_the_header_alone() {
    let kiln = Kiln::new();
    let output = kiln.run(["images"]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (
            "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n".to_owned(),
            String::new()
        )
    );
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
    assert_eq!(kiln.run(["images", "--format", "json"]).ok().stdout(), "");
}

#[test]
fn quiet_prints_each_id_once_and_no_trunc_prints_it_whole() {
    let Store {
        kiln,
        one,
        two,
        three,
        ..
    } = store();
    let ids = [&three.id, &one.id, &two.id];
    assert_eq!(
        kiln.run(["images", "-q"]).ok().stdout(),
        ids.map(|id| format!("{}\n", short(id))).concat()
    );
    assert_eq!(
        kiln.run(["images", "-q", "--no-trunc"]).ok().stdout(),
        ids.map(|id| format!("{id}\n")).concat()
    );
    let table = kiln.run(["images", "--no-trunc"]).ok().stdout();
    assert!(table.contains(&format!(" {} ", one.id)), "{table}");
}

#[test]
fn name_filters_by_repository_and_tag() {
    let Store {
        kiln,
        registry,
        one,
        three,
        ..
    } = store();
    let ids = |name: &str| kiln.run(["images", "-q", "--no-trunc", name]).ok().stdout();
    assert_eq!(ids("hello"), format!("{}\n", one.id));
    assert_eq!(ids("hello:latest"), format!("{}\n", one.id));
    assert_eq!(ids("hello:other"), "");
    assert_eq!(ids("hell"), "");
    let repository = format!("{}/app", registry.address());
    assert_eq!(ids(&repository), format!("{}\n{}\n", three.id, one.id));
    assert_eq!(ids(&registry.reference("one")), format!("{}\n", one.id));
}

#[test]
fn json_has_docker_s_keys_an_object_per_line() {
    let Store {
        kiln,
        registry,
        one,
        ..
    } = store();
    let output = kiln
        .run(["images", "--format", "json", &registry.reference("one")])
        .ok();
    assert_eq!(output.stdout().lines().count(), 1);
    let mut line: Value = serde_json::from_str(&output.stdout()).unwrap();
    let since = line["CreatedSince"].take();
    assert_eq!(settled(since.as_str().unwrap(), &[]), "NN years ago");
    assert_eq!(
        line,
        json!({
            "Containers": "N/A",
            "CreatedAt": "2001-01-01 00:00:00 +0000 UTC",
            "CreatedSince": null,
            "Digest": one.manifest,
            "ID": short(&one.id),
            "Repository": format!("{}/app", registry.address()),
            "SharedSize": "N/A",
            "Size": "1.23kB",
            "Tag": "one",
            "UniqueSize": "N/A",
            "VirtualSize": "1.23kB",
        })
    );
}

#[test]
fn reader_that_closes_the_pipe_is_no_error() {
    let kiln = store().kiln;
    let mut command = kiln.command(["images"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn filters_choose_by_name_label_time_and_whether_there_is_a_name() {
    let Store {
        kiln,
        registry,
        one,
        two,
        three,
    } = store();
    let ids = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        let arguments = ["images", "-q", "--no-trunc"].into_iter().chain(filters);
        kiln.run(arguments).ok().stdout()
    };
    let lines = |ids: &[&Published]| {
        ids.iter()
            .map(|i| format!("{}\n", i.id))
            .collect::<String>()
    };
    assert_eq!(ids(&["dangling=true"]), lines(&[&two]));
    assert_eq!(ids(&["dangling=false"]), lines(&[&three, &one]));
    assert_eq!(ids(&["reference=hel*"]), lines(&[&one]));
    assert_eq!(ids(&["reference=h?llo:l*"]), lines(&[&one]));
    // As in docker, a wildcard does not cross a slash.
    assert_eq!(ids(&["reference=*app*"]), "");
    assert_eq!(ids(&["reference=*/app"]), lines(&[&three, &one]));
    assert_eq!(ids(&["reference=*/*:two"]), lines(&[&three]));
    let address = registry.reference("one");
    assert_eq!(ids(&[&format!("before={address}")]), lines(&[&two]));
    assert_eq!(ids(&["since=hello"]), lines(&[&three]));
    assert_eq!(
        ids(&["since=hello", "dangling=true"]),
        "",
        "different filters all have to hold"
    );
    // Those of the registry were made long ago.
    assert_eq!(ids(&["until=24h"]), lines(&[&three, &one, &two]));
    assert_eq!(ids(&["until=1990-01-01"]), "");
    let by_digest = |digest: &str| {
        let name = format!("{}@{digest}", address.rsplit_once(':').unwrap().0);
        kiln.run(["images", "-q", "--no-trunc", &name])
            .ok()
            .stdout()
    };
    let digest = kiln
        .run(["images", "--format", "{{.Digest}}", &address])
        .ok();
    assert_eq!(by_digest(&digest.line()), lines(&[&one]));
    assert_eq!(by_digest(&format!("sha256:{}", "0".repeat(64))), "");
    let by_pattern = kiln.run(["images", "-q", "--no-trunc", "he*"]).ok();
    assert_eq!(by_pattern.stdout(), lines(&[&one]));

    kiln.build("FROM hello\nLABEL tier=web empty=\n", &[]).ok();
    let tests = |filter| kiln.run(["images", "--filter", filter, "--format", "{{.Repository}}"]);
    for filter in ["label=tier", "label=tier=web", "label=empty="] {
        assert_eq!(tests(filter).ok().stdout(), "test\n", "{filter}");
    }
    assert_eq!(tests("label=tier=db").ok().stdout(), "");

    let refused = |filter: &str| {
        let output = kiln.run(["images", "--filter", filter]).fails();
        (output.code(), output.stderr())
    };
    assert_eq!(
        refused("colour=red"),
        (
            Some(2),
            "error: invalid filter \"colour=red\"\n\
             hint: the filters are reference=PATTERN, label=NAME[=VALUE], label!=NAME[=VALUE], \
             dangling=true|false, before=IMAGE, since=IMAGE and until=TIME\n"
                .to_owned()
        )
    );
    let (code, message) = refused("before=nosuch");
    assert_eq!(code, Some(1));
    assert!(
        message.starts_with("error: no such image: nosuch\n"),
        "{message}"
    );
    assert_eq!(
        refused("reference=[a").1,
        "error: invalid pattern \"[a\"\nhint: a '[' needs its ']'\n"
    );
}

#[test]
fn format_takes_the_templates_of_docker() {
    let Store {
        kiln,
        registry,
        one,
        ..
    } = store();
    let show = |format: &str| {
        let output = kiln.run(["images", "--format", format, "hello"]);
        output.ok().stdout()
    };
    let id = short(&one.id);
    assert_eq!(
        show("{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"),
        format!("hello:latest {id} 1.23kB\n")
    );
    assert_eq!(
        show("{{.CreatedAt}}|{{upper .Repository}}"),
        "2001-01-01 00:00:00 +0000 UTC|HELLO\n"
    );
    assert_eq!(
        show(r"table {{.ID}}\t{{.Repository}}"),
        format!("IMAGE ID       REPOSITORY\n{id}   hello\n")
    );
    let json: Value = serde_json::from_str(&show("{{json .}}")).unwrap();
    assert_eq!(json["Repository"], "hello");
    assert_eq!(show("{{json .Tag}}"), "\"latest\"\n");
    let failed = kiln.run(["images", "--format", "{{.Name}}"]).fails();
    assert_eq!(
        (failed.code(), failed.stderr()),
        (
            Some(1),
            "error: invalid template: there is no field .Name\n\
             hint: the fields are Containers, CreatedAt, CreatedSince, Digest, ID, Repository, \
             SharedSize, Size, Tag, UniqueSize, VirtualSize\n"
                .to_owned()
        )
    );
    let name = registry.reference("one");
    let digests = kiln.run(["images", "--digests", &name]).ok().stdout();
    let mut lines = digests.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header[..3], ["REPOSITORY", "TAG", "DIGEST"]);
    assert!(
        lines
            .next()
            .unwrap()
            .contains(&format!(" {} ", one.manifest)),
        "{digests}"
    );
}

#[test]
fn docker_s_longer_names_do_the_same() {
    let kiln = store().kiln;
    for (long, short) in [
        (&["image", "ls", "-q"][..], &["images", "-q"][..]),
        (&["image", "list", "-a"], &["images"]),
        (&["image", "inspect", "hello"], &["inspect", "hello"]),
        (&["image", "history", "hello"], &["history", "hello"]),
    ] {
        assert_eq!(
            kiln.run(long).ok().stdout(),
            kiln.run(short).ok().stdout(),
            "{long:?}"
        );
    }
    kiln.run(["image", "tag", "hello", "again"]).ok();
    let output = kiln.run(["image", "rm", "again"]).ok();
    assert_eq!(output.stdout(), "Untagged: again:latest\n");
}
