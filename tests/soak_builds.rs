//! Builds as people have them: packages by apt, pip and npm within RUN. Long, so `ci/soak` runs
//! them.

mod support;

use support::{Kiln, Registry, soak_only};

const DOCKERFILE: &str = r#"
FROM @DEBIAN@ AS python
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip
RUN pip install --break-system-packages --no-cache-dir six requests flask
RUN python3 -c 'import flask, requests, six; print("six", six.__version__)' > /six

FROM @DEBIAN@ AS node
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
RUN apt-get update && apt-get install -y --no-install-recommends npm
WORKDIR /app
RUN npm init -y && npm install express@4 is-number
RUN node -e 'console.log("five", require("is-number")(5))' > /five

FROM scratch
COPY --from=python /six /six
COPY --from=node /five /five
COPY --from=node /app/node_modules /node_modules
"#;

#[test]
fn pip_and_npm_install_within_run_and_a_rebuild_takes_nothing_but_records() {
    soak_only!();
    let kiln = Kiln::new().limit(std::time::Duration::from_secs(900));
    let dockerfile = DOCKERFILE.replace("@DEBIAN@", &Registry::shared().debian());
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    assert_eq!(image.tree.file("/five").content(), b"five true\n");
    let six = image.tree.file("/six").content();
    assert!(six.starts_with(b"six 1."), "{six:?}");
    assert!(
        image
            .tree
            .get("/node_modules/express/package.json")
            .is_some()
    );

    let again = kiln.build(&dockerfile, &[]).ok();
    let done = again.stderr();
    assert!(!done.contains("RUN") || !done.contains("added"), "{done}");
    let ran: Vec<&str> = done.lines().filter(|l| l.contains(" DONE ")).collect();
    assert_eq!(ran.len(), 1, "only the export is no record: {ran:?}");
    assert_eq!(kiln.image("test").id, image.id);
}
