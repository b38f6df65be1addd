//! Providers as they answer in the field: slowly, with Retry-After on success, with their own
//! error codes and messages, and differently for each part of a request.

mod cases;
mod interrupted;
mod plan;
mod property;
mod reasons;
mod slow;
mod tenant;

use dispatch_worker::devkit::simulator::faults::FaultRule;
use serde_json::json;

/// The page that Azure DevOps returns instead of data if it does not accept a token.
const SIGN_IN_PAGE: &str =
    "<!DOCTYPE html><html><head><title>Sign In</title></head><body></body></html>";

/// The message of Azure DevOps for a token that belongs to no user.
const NOBODY: &str = "TF400813: The user '' is not authorized to access this resource.";

/// Returns a refusal in the error format of Azure DevOps.
fn refusal(status: u16, type_key: &str, message: &str) -> FaultRule {
    FaultRule::answering(
        status,
        json!({"typeKey": type_key, "message": message}).to_string(),
    )
}
