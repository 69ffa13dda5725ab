// Package native reaches the Hyper-V of the machine that it runs on.
package native
