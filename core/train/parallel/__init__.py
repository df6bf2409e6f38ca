"""Layouts of a model over ranks: mesh, data, sharded, tensor, pipeline and context parallel."""
