//! The parts that kiln's time goes into, each alone: `cargo bench`, or `cargo bench -- gzip`
//! for some. `ci/bench` measures whole commands.

use std::fs;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kiln::context::ignore::IgnoreFile;
use kiln::dockerfile::{self, Source};
use kiln::image::{DiffId, Digest};
use kiln::layer::{
    ApplyMode, ApplyOptions, Chunked, Compression, Compressor, Digester, LayerDir, Limits, Omit,
    Ownership, View, apply, write_tar,
};
use kiln::store::{StepRecord, Store};

fn main() {
    divan::main();
}

const MIB: usize = 1 << 20;
/// Files of a tree, of 4 KiB each.
const FILES: usize = 200;

/// Returns bytes that compress to about a half.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length)
        .map(|at| if at % 3 == 0 { next() } else { b'x' })
        .collect()
}

/// Makes a tree of small files.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        let directory = root.path().join(format!("d{}", number % 10));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), sample(4096)).unwrap();
    }
    root
}

fn layer_of(root: &tempfile::TempDir) -> LayerDir {
    LayerDir::plain(OwnedFd::from(fs::File::open(root.path()).unwrap()))
}

fn tar_of_tree() -> Vec<u8> {
    let mut tar = Vec::new();
    write_tar(&layer_of(&tree()), &Omit::default(), &mut tar).unwrap();
    tar
}

#[divan::bench]
fn hash_sha256(bencher: Bencher) {
    let data = sample(MIB);
    bencher
        .counter(BytesCount::new(MIB))
        .bench_local(|| Digest::of(black_box(&data)));
}

#[divan::bench]
fn hash_sha256_beside(bencher: Bencher) {
    let data = sample(16 * MIB);
    bencher.counter(BytesCount::new(16 * MIB)).bench_local(|| {
        let mut stream = Chunked::new(Digester::new(kiln::image::Algorithm::Sha256));
        stream.write_all(black_box(&data)).unwrap();
        stream.finish().unwrap().finish().unwrap()
    });
}

#[divan::bench]
fn hash_blake3(bencher: Bencher) {
    let data = sample(MIB);
    bencher
        .counter(BytesCount::new(MIB))
        .bench_local(|| blake3::hash(black_box(&data)));
}

#[divan::bench]
fn tar_write(bencher: Bencher) {
    let root = tree();
    let layer = layer_of(&root);
    bencher
        .counter(ItemsCount::new(FILES))
        .bench_local(|| write_tar(&layer, &Omit::default(), &mut io::sink()).unwrap());
}

#[divan::bench]
fn tar_extract(bencher: Bencher) {
    let tar = tar_of_tree();
    let nothing = View::new(Vec::new());
    let options = ApplyOptions {
        ownership: Ownership::Single,
        lower: &nothing,
        mode: ApplyMode::Layer,
        limits: Limits::default(),
    };
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| tempfile::tempdir().unwrap())
        .bench_local_refs(|directory| {
            let directory = fs::File::open(directory.path()).unwrap();
            apply(&mut &tar[..], directory.as_fd(), &options).unwrap()
        });
}

fn compressed(compressor: Compressor, data: &[u8]) -> Vec<u8> {
    let mut encoder = compressor.encoder(Vec::new()).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

const COMPRESSORS: [&str; 2] = ["gzip", "zstd"];

#[divan::bench(args = COMPRESSORS)]
fn compress(bencher: Bencher, format: &str) {
    let data = sample(4 * MIB);
    let compressor = Compressor::new(format, None).unwrap();
    bencher
        .counter(BytesCount::new(data.len()))
        .bench_local(|| compressed(compressor, black_box(&data)));
}

#[divan::bench(args = COMPRESSORS)]
fn decompress(bencher: Bencher, format: &str) {
    let data = sample(4 * MIB);
    let bytes = compressed(Compressor::new(format, None).unwrap(), &data);
    let mut buffer = vec![0; 128 << 10];
    bencher
        .counter(BytesCount::new(data.len()))
        .bench_local(|| {
            let (_, mut reader) = Compression::decode(black_box(&bytes[..])).unwrap();
            while reader.read(&mut buffer).unwrap() > 0 {}
        });
}

#[divan::bench]
fn dockerfile_parse(bencher: Bencher) {
    let steps: String = (0..100)
        .map(|step| {
            format!("RUN --network=none echo {step} \\\n  && true\nCOPY --chown=1 a{step} /b/\n")
        })
        .collect();
    let source = Source::new("Dockerfile", format!("FROM scratch\n{steps}"));
    bencher
        .counter(ItemsCount::new(200usize))
        .bench_local(|| dockerfile::parse(black_box(&source)).unwrap());
}

#[divan::bench]
fn cache_lookup(bencher: Bencher) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let record = StepRecord {
        diff_id: DiffId(Digest::of(b"layer")),
        created: "2025-01-01T00:00:00Z".to_owned(),
    };
    store.write_step_record("inputs", None, &record).unwrap();
    bencher.bench_local(|| store.step_record(black_box("inputs"), None).unwrap());
}

#[divan::bench]
fn ignore_match(bencher: Bencher) {
    let rules = b"**/node_modules\n*.log\n!keep.log\ntarget/**\n**/*.py[co]\ndocs/*/build\n";
    let ignore = IgnoreFile::parse(rules, ".dockerignore").unwrap();
    let paths: Vec<String> = (0..1000)
        .map(|number| {
            format!(
                "src/module{}/part{}/file{number}.rs",
                number % 10,
                number % 100
            )
        })
        .collect();
    bencher
        .counter(ItemsCount::new(paths.len()))
        .bench_local(|| {
            let taken = |path: &&String| !ignore.decide(path.as_bytes()).excluded;
            paths.iter().filter(taken).count()
        });
}
