//go:build tools

// Package mongo pins the server that answers MongoDB's wire protocol in the tests; `server` builds it.
package mongo

import _ "github.com/FerretDB/FerretDB/cmd/ferretdb"
