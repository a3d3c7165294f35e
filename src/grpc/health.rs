//! The health service: that of tonic-health, but a watch of an unknown service says so and goes on, as the proto file of the service
//! demands.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _, once, pending};
use tonic::{Code, Request, Response, Status};
use tonic_health::{
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_check_response::ServingStatus,
        health_server::{Health, HealthServer},
    },
    server::{HealthReporter, HealthService},
};

/// The methods of the service.
pub struct HealthMethods(HealthService);

/// The health service, and the handle that sets what it says.
#[must_use]
pub fn health_service() -> (HealthReporter, HealthServer<HealthMethods>) {
    let reporter = HealthReporter::new();
    let methods = HealthMethods(HealthService::from_health_reporter(reporter.clone()));
    (reporter, HealthServer::new(methods))
}

#[tonic::async_trait]
impl Health for HealthMethods {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        match self.0.watch(request).await {
            Ok(response) => Ok(response.map(|statuses| -> Self::WatchStream { Box::pin(statuses) })),
            Err(status) if status.code() == Code::NotFound => {
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
                // This server adds no service later, so the answer never changes.
                Ok(Response::new(Box::pin(once(Ok(unknown)).chain(pending()))))
            }
            Err(status) => Err(status),
        }
    }
}
