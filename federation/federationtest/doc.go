// Package federationtest helps to test what stands on package federation: a [Memory] store, a [Link] that can be cut
// between a process and a store, and the suite [TestStore], which an implementation of [federation.Store] must pass.
//
// It works in a bubble of [testing/synctest], as far as the store does. It is for tests only.
package federationtest
