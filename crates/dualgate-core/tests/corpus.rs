//! The corpus of the fuzz targets keeps the promises that the targets check (`fuzz/`).

use std::path::Path;

#[path = "oracle/announcer.rs"]
mod announcer;
#[path = "oracle/dns.rs"]
mod dns;
#[path = "oracle/objects.rs"]
mod objects;
#[path = "oracle/ownership.rs"]
mod ownership;
#[path = "oracle/site_file.rs"]
mod site_file;

type Check = fn(&[u8]);

#[test]
fn the_corpus_of_the_fuzz_targets_keeps_its_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let targets: [(&str, Check); 6] = [
        ("site_file", site_file::check),
        ("objects", objects::check),
        ("annotations", objects::check_annotation),
        ("announcer", announcer::check),
        ("dns", dns::check),
        ("ownership", ownership::check),
    ];
    for (target, check) in targets {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(target)).expect(target) {
            check(&std::fs::read(entry.expect(target).path()).expect(target));
            inputs += 1;
        }
        assert!(inputs > 3, "{target} has a corpus");
    }
}

#[test]
fn the_examples_keep_the_promises_too() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for site in ["home/site.yaml", "laptop/site.yaml"] {
        site_file::check(&std::fs::read(examples.join(site)).expect(site));
    }
    for entry in std::fs::read_dir(examples.join("laptop/manifests")).expect("manifests") {
        objects::check(&std::fs::read(entry.expect("a manifest").path()).expect("a manifest"));
    }
}
