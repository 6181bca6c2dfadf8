// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend
