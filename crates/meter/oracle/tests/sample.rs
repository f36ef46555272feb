//! Every tokenizer on board against its oracles on 5 MB: the sample of `make oracle` that runs with all tests.
#![allow(clippy::panic, reason = "a difference is a failed test")]

use std::path::Path;

use tollgate_meter_oracle::compare::{compare, counter};
use tollgate_meter_oracle::corpus::{from_folders, generated};
use tollgate_meter_oracle::subject::on_board;
use tollgate_meter_oracle::texts::Rng;

fn sample(name: &str) {
    // Manuals in many languages where the system has them; the generated part makes up for what it has not.
    let mut documents = from_folders(
        &[Path::new("/usr/share/man"), Path::new("/usr/share/doc")],
        1_500_000,
    );
    let found: usize = documents.iter().map(String::len).sum();
    documents.extend(generated(2, 5_000_000_usize.saturating_sub(found)));
    assert!(documents.iter().map(String::len).sum::<usize>() >= 5_000_000);
    let subject = on_board(name);
    let mut counter = counter(&subject);
    let mut rng = Rng::new(3);
    for oracle in &subject.oracles {
        for text in &documents {
            if let Err(difference) = compare(oracle, &mut counter, text, &mut rng) {
                panic!("{name}: {difference}");
            }
        }
    }
}

macro_rules! samples {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                sample($name);
            }
        )*
    };
}

samples! {
    o200k_base_has_the_oracles_ids: "o200k_base",
    o200k_harmony_has_the_oracles_ids: "o200k_harmony",
    cl100k_base_has_the_oracle_s_ids: "cl100k_base",
    p50k_base_has_the_oracles_ids: "p50k_base",
    r50k_base_has_the_oracles_ids: "r50k_base",
    qwen_has_the_oracles_ids: "qwen",
    deepseek_has_the_oracle_s_ids: "deepseek",
    glm_has_the_oracles_ids: "glm",
}
