//! The options that say who may signal whom.

use clap::Args;

use super::values::{claim, listed};

/// Which claims of an identity limit whom its caller may reach.
#[derive(Args, Clone, Debug)]
pub struct PermissionOptions {
    /// Claim with the tenant of a user. Users of different tenants do not exist for each other; who has no tenant is refused
    #[arg(long, env = "SIGNAL_TENANT_CLAIM", value_name = "CLAIM", value_parser = claim)]
    pub tenant_claim: Option<String>,

    /// Claim with an array of the users that a caller may reach besides itself; any other user is refused
    #[arg(long, env = "SIGNAL_ALLOW", value_name = "listed:CLAIM", value_parser = listed)]
    pub allow: Option<String>,

    /// Claim that is true for a backend. --allow does not limit it, and if it has no tenant, it may name one in X-Signal-Tenant
    #[arg(long, env = "SIGNAL_SERVICE_CLAIM", value_name = "CLAIM", value_parser = claim)]
    pub service_claim: Option<String>,
}
