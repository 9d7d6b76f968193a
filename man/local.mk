# Hand-written mdoc(7).
