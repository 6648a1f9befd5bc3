//! Usage batches in, `AWS/ECS` metrics out: per cluster, service, task and container.
