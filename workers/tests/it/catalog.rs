//! Contracts and handlers agree: every kind that can be published is settled by somebody.

use std::collections::BTreeSet;

use contracts::CATALOG;
use testkit::Sandbox;

#[tokio::test]
async fn every_kind_of_the_catalog_has_a_handler_and_no_other_has() {
    let sandbox = Sandbox::new("catalog").await;
    let settings = crate::support::settings(&sandbox);
    let registry = workers::registry::registry(&settings).expect("the sample settings suffice");
    let handled: BTreeSet<_> = registry.kinds().collect();
    let known: BTreeSet<_> = CATALOG.iter().map(|kind| kind.name).collect();
    assert_eq!(handled, known);
    sandbox.close().await;
}
