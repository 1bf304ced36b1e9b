"""Models of registered meshes: fixed topology, vertices in correspondence."""
