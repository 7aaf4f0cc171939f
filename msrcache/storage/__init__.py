"""Keys and bytes: drivers and the portable store over them; knows no digest and no registry."""
