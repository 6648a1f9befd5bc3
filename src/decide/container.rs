//! What an agent does next for one task: order of start and stop, dependencies, essential containers, restarts. Runs on the agent,
//! without the control plane.
