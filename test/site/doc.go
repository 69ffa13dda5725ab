// Package site runs a whole Hyperkeep on this machine: a real control plane, the manager, the keeper, and emulated Hyper-V hosts with their agents,
// each a process of its own that talks to the others as it would in production. The demo and the tests share it.
//
// It starts programs and applies manifests, and knows nothing of their insides: it imports the API's types and no code of the agent or the manager.
package site
