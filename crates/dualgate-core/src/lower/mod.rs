//! Kubernetes' words end here: Ingresses, Services, EndpointSlices and Secrets become routes, backends and certificates.
