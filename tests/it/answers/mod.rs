//! The other side as it really answers: slow, asking for patience in what worked, with reasons of its own, and differently for
//! each part of what it was asked.

mod cases;
mod interrupted;
mod plan;
mod property;
mod reasons;
mod slow;
mod tenant;

use dispatch_worker::devkit::simulator::faults::FaultRule;
use serde_json::json;

/// What stands in the place of data where a token is not accepted.
const SIGN_IN_PAGE: &str = "<!DOCTYPE html><html><head><title>Sign In</title></head><body></body></html>";

/// What Azure DevOps says of a token that it does not accept: it knows no user by it.
const NOBODY: &str = "TF400813: The user '' is not authorized to access this resource.";

/// Azure DevOps refuses, in the form of its errors.
fn refusal(status: u16, type_key: &str, message: &str) -> FaultRule {
    FaultRule::answering(status, json!({"typeKey": type_key, "message": message}).to_string())
}
