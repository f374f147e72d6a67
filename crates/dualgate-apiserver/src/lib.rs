//! A Kubernetes API in memory, for labs and tests: it speaks real HTTP, keeps what it is told, and forgets it with its
//! process. It is no cluster: nothing runs, and nobody is refused for who they are.
