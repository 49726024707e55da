//! The model passes the suite that it is the oracle of; and this is how any broker runs it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Kind};
use outlast_testkit::conformance::{Differences, Fixture, Handle, Provoked, Skip};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

const ARCHIVE_MAX: usize = 20;

struct ModelFixture(Arc<ModelBroker>);

impl ModelFixture {
    fn new() -> Self {
        Self(Arc::new(ModelBroker::new(ARCHIVE_MAX)))
    }
}

#[async_trait]
impl Fixture for ModelFixture {
    fn broker(&self) -> Arc<dyn Broker> {
        self.0.clone()
    }

    fn inspect(&self) -> Arc<dyn Inspect> {
        self.0.clone()
    }

    fn differences(&self) -> Differences {
        Differences { archive_max: ARCHIVE_MAX, ..Differences::default() }
    }

    async fn second_handle(&self) -> Result<Handle, Skip> {
        Ok(Handle { broker: self.0.clone(), inspect: self.0.clone() })
    }

    /// The model never fails by itself: planned faults stand before it.
    async fn provoke(&self, kind: Kind) -> Result<Provoked, Skip> {
        let faulty = Arc::new(FaultBroker::new(self.0.clone()));
        let fault = if kind == Kind::Ambiguous { Fault::After } else { Fault::Before(kind) };
        faulty.always(Verb::Enqueue, fault);
        let handle = Handle { broker: faulty.clone(), inspect: self.0.clone() };
        Ok(Provoked { handle, heal: Some(Box::new(move || faulty.heal())), guard: Box::new(()) })
    }
}

outlast_testkit::conformance!(ModelFixture::new());

/// `topic { case … } …` as `topic::case`.
macro_rules! names {
    ($($topic:ident { $($case:ident)* })*) => {
        [$($(concat!(stringify!($topic), "::", stringify!($case)),)*)*]
    };
}

/// A case that is written and not listed would never run, and nobody would notice.
#[test]
fn every_case_is_in_the_list() {
    let listed: BTreeSet<String> =
        outlast_testkit::conformance_list! { names }.map(str::to_owned).into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let mut written = BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("the suite's folder") {
        let path = file.expect("a file").path();
        let topic = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("source text");
        let cases = text.lines().filter_map(|line| {
            line.strip_prefix("pub async fn ")?.split_once("(c: &Case)").map(|(name, _)| name)
        });
        written.extend(cases.map(|case| format!("{topic}::{case}")));
    }
    assert_eq!(listed, written);
    assert!(listed.len() >= 300, "the suite has only {} cases", listed.len());
}

/// The comparison compares: the model does not differ from itself.
#[test]
fn the_model_agrees_with_itself_over_random_sequences() {
    outlast_testkit::random::check(64, || async { ModelFixture::new() });
}
