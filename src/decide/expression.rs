//! The cluster query language of memberOf constraints and of ListContainerInstances' filter.
