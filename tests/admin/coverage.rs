//! Every endpoint of the table is asked by at least one test of this folder.

use super::node::TestNode;

/// What the tests of this folder ask, as they are written.
const TESTS: &[&str] = &[
    include_str!("bodies.rs"),
    include_str!("collections.rs"),
    include_str!("elements.rs"),
    include_str!("node_endpoints.rs"),
    include_str!("transport.rs"),
];
